import json
import subprocess
import sys
from dataclasses import replace

import pytest

from trustnlp.dp import Ledger, PrivacyPlan, accounting
from trustnlp.errors import GuaranteeError, RunError

PLAN = PrivacyPlan(examples=100, expected_batch=10, steps=12, noise_multiplier=2.0, delta=1e-4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "ledger.jsonl"


def spend(path, steps, plan=PLAN):
    ledger = Ledger.open(path, plan)
    return [ledger.spend() for _ in range(steps)]


class TestLedger:
    def test_every_spend_is_on_the_disk_with_block_and_event(self, path):
        assert spend(path, 2) == [0, 1]
        header, *lines = map(json.loads, path.read_text().splitlines())
        assert header["plan"] == PLAN.as_dict()
        assert header["digest"] == PLAN.digest()
        assert lines[1] == {"step": 1, "block": 1, "sample_rate": 0.1, "noise_multiplier": 2.0}

    def test_truncation_is_on_the_disk_and_counted(self, path):
        plan = replace(PLAN, sampling="truncated-poisson", largest_batch=20)
        spend(path, 3, plan)
        line = json.loads(path.read_text().splitlines()[1])
        assert (line["examples"], line["largest_batch"]) == (100, 20)
        assert Ledger.read(path).spent_epsilon() == plan.epsilon(3) > PLAN.epsilon(3)

    @pytest.mark.parametrize("record", ["3", "{}", '{"step": 1, "block": 1, "sample_rate": 0.1}', '{"step": 1'])
    def test_a_line_that_is_not_one_counts_as_the_plans_step(self, path, record):
        spend(path, 3)
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:2], record, lines[3]]) + "\n")
        assert Ledger.read(path).spent_epsilon() == PLAN.epsilon(3)

    @pytest.mark.parametrize("more", ['"count": 1', '"surprise": 1', '"examples": -1'])
    def test_lines_with_other_fields_count_as_the_plans_step(self, path, more):
        spend(path, 1, replace(PLAN, noise_decay=0.5))
        path.write_text(path.read_text().replace('"noise_multiplier": 2.0}', f'"noise_multiplier": 9.0, {more}}}'))
        assert Ledger.read(path).spent_epsilon() == PLAN.epsilon(1)

    def test_resuming_goes_on_with_fresh_blocks(self, path):
        assert spend(path, 3) + spend(path, 2) + spend(path, 1) == [0, 1, 2, 3, 4, 5]

    def test_an_exhausted_plan_spends_no_more(self, path):
        spend(path, 12)
        for ledger in (Ledger.open(path, PLAN), Ledger.read(path)):
            with pytest.raises(GuaranteeError, match="all 12 steps"):
                ledger.spend()
        assert Ledger.read(path).spent == 12

    def test_in_memory_it_counts_the_same(self):
        ledger = Ledger.in_memory(PLAN)
        assert [ledger.spend() for _ in range(12)] == list(range(12))
        with pytest.raises(GuaranteeError):
            ledger.spend()

    def test_spent_epsilon_is_that_of_the_steps(self, path):
        assert Ledger.open(path, PLAN).spent_epsilon() == 0
        spend(path, 5)
        assert Ledger.read(path).spent_epsilon() == PLAN.epsilon(5)

    def test_spent_epsilon_is_computed_from_the_lines(self, path):
        spend(path, 2)
        path.write_text(path.read_text().replace('"noise_multiplier": 2.0}', '"noise_multiplier": 1.0}'))
        assert Ledger.read(path).spent_epsilon() == accounting.epsilon([accounting.Event(0.1, 1.0, 2)], 1e-4)

    @pytest.mark.parametrize("cut", [1, 2, 20, 60])
    def test_a_torn_last_line_is_counted_as_spent(self, path, cut):
        spend(path, 3)
        path.write_bytes(path.read_bytes()[:-cut])
        assert Ledger.read(path).spent == 3
        assert Ledger.read(path).spent_epsilon() == PLAN.epsilon(3)
        assert spend(path, 1) == [3]
        assert Ledger.read(path).spent == 4
        assert spend(path, 1) == [4]

    def test_bytes_of_nothing_left_by_a_power_cut_are_counted_as_spent(self, path):
        spend(path, 1)
        path.write_bytes(path.read_bytes() + b"\0" * 40)
        assert spend(path, 1) == [2]

    def test_another_plan_is_refused(self, path):
        spend(path, 1)
        with pytest.raises(GuaranteeError, match="1 steps of another plan"):
            Ledger.open(path, replace(PLAN, noise_multiplier=3.0))

    @pytest.mark.parametrize("lines", [[0, 2], [0, 0], [1], [0, 1, 3]])
    def test_missing_or_double_lines_are_refused(self, path, lines):
        spend(path, 4)
        header, *steps = path.read_text().splitlines(keepends=True)
        path.write_text(header + "".join(steps[i] for i in lines))
        with pytest.raises(GuaranteeError, match="missing or double"):
            Ledger.open(path, PLAN)

    def test_two_writers_are_refused(self, path):
        one, other = Ledger.open(path, PLAN), Ledger.open(path, PLAN)
        one.spend()
        with pytest.raises(GuaranteeError, match="another process"):
            other.spend()

    @pytest.mark.parametrize("text", ["", "hello\n", '{"ledger": 1}\n', '{"step": 0}\n'])
    def test_what_is_no_ledger_is_refused(self, path, text):
        path.parent.mkdir()
        path.write_text(text)
        with pytest.raises(RunError):
            Ledger.open(path, PLAN)

    def test_a_changed_header_is_refused(self, path):
        spend(path, 1)
        path.write_text(path.read_text().replace('"steps": 12', '"steps": 13'))
        with pytest.raises(RunError, match="do not match"):
            Ledger.read(path)

    def test_reading_what_is_not_there_is_refused(self, path):
        with pytest.raises(RunError, match="no ledger"):
            Ledger.read(path)

    def test_a_killed_process_has_spent_at_least_what_it_showed(self, path):
        code = (
            "import sys; from trustnlp.dp import *; plan = PrivacyPlan.from_json(sys.argv[2])\n"
            "ledger = Ledger.open(sys.argv[1], plan)\n"
            "while True: print(ledger.spend(), flush=True)"
        )
        plan = replace(PLAN, steps=100_000)
        process = subprocess.Popen(
            [sys.executable, "-c", code, path, plan.to_json()], stdout=subprocess.PIPE, text=True
        )
        with process:
            for _ in range(20):
                process.stdout.readline()
            process.kill()
            shown = 19 + len(process.stdout.readlines())
        assert Ledger.read(path).spent >= shown
        assert spend(path, 1, plan) == [Ledger.read(path).spent - 1]
