from trustnlp.progress import Progress, silent


def test_silent_is_a_listener() -> None:
    listener: Progress = silent
    assert listener("training", 1, 2, {"loss": 0.5}) is None  # type: ignore[func-returns-value]
