"""User-level units: all examples of a person are clipped as one, so that a plan protects people.

Shape legend: N examples of U users.

    examples, users (N,) ─> ByUser, of length U ─ draw ─> one `Unit` for each user: examples, weight 1 / their number

What is clipped for a user is the mean gradient of the user's examples, so that who writes much does not count more.
Adding or removing a user with any number of examples then moves a clipped sum by at most the threshold.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from trustnlp import checks
from trustnlp.dp.clipping import Unit
from trustnlp.models.protocol import Batch, Encoded
from trustnlp.randomness import Streams


class ByUser:
    """Data of which each item is a user, for plans with `unit="user"`; users are numbered as they first appear.

    Guarantee: with such a plan, for adding or removing one user with all their examples. It needs `users` to be right:
    somebody under two names is protected as two users.

    Args:
        encoded: the examples.
        users: (N,) whose each example is.
        most_rows: a public constant; of a user with more examples, as many are drawn afresh for every step, without
            replacement. It bounds the time that a step takes, and changes nothing about the guarantee, since one user's
            examples and random draws never touch another's. None takes all.

    Raises:
        ArgumentError: not one user for each example, no example, or `most_rows` below 1.
    """

    def __init__(self, encoded: Encoded, users: Sequence[Hashable], most_rows: int | None = None) -> None:
        checks.same_length(encoded=encoded, users=users)
        checks.not_empty("users", users)
        self.encoded = encoded
        self.most_rows = None if most_rows is None else checks.at_least("most_rows", most_rows, 1)
        rows: dict[Hashable, list[int]] = {}
        for row, user in enumerate(users):
            rows.setdefault(user, []).append(row)
        self._rows = [np.array(of_user) for of_user in rows.values()]

    def __len__(self) -> int:
        """U."""
        return len(self._rows)

    def rows(self, user: int) -> np.ndarray:
        """Which examples are the user's, in ascending order."""
        return self._rows[user]

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """All examples of these users, user by user; may be more than there are users."""
        return self.encoded.batch(np.concatenate([self._rows[user] for user in indices]))

    def units(self, users: Sequence[int] | np.ndarray, streams: Streams, step: int) -> list[Unit]:
        """One unit for each drawn user.

        Args:
            users: their numbers.
            streams: of which the stream `rows of a user` is used, at the step and the user.
            step: of the run.
        """
        return [self._unit(int(user), streams, step) for user in users]

    def _unit(self, user: int, streams: Streams, step: int) -> Unit:
        rows = self._rows[user]
        if self.most_rows is not None and len(rows) > self.most_rows:
            generator = streams.numpy("rows of a user", step, user)
            rows = np.sort(generator.choice(rows, self.most_rows, replace=False))
        return Unit(rows, 1 / len(rows))
