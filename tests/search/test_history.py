import json
import time

import pytest
import torch

from graphpruning.search.history import Candidate, History


def test_history_refuses_a_candidate_over_the_budget():
    history = History(100)
    history.append(Candidate({"a": 1}, 100, 50.0))
    with pytest.raises(ValueError, match="101 MACs exceed the budget of 100"):
        history.append(Candidate({"a": 2}, 101, 90.0))
    assert len(history) == 1


def test_best_is_the_earliest_of_equals():
    history = History(100)
    for width, accuracy in ((1, 40.0), (2, 70.0), (3, 70.0)):
        history.append(Candidate({"a": width}, width, accuracy))
    assert history.best.widths == {"a": 2}


class Judge:
    """Answers with the sum of the widths, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, widths):
        self.asked.append(dict(widths))
        return sum(widths.values()) / 7  # a fraction that JSON has to round-trip


@pytest.fixture
def file(tmp_path):
    """Where the fixture `journal` writes."""
    return tmp_path / "journal.jsonl"


@pytest.fixture
def questions(space, half):
    generator = torch.Generator().manual_seed(0)
    return [space.sample_within(half, generator) for _ in range(4)]


def test_journal_answers_as_often_as_it_may(journal, questions):
    opened = journal(Judge(), 2)
    answers = [opened(widths) for widths in questions[:2]]
    assert answers == [sum(widths.values()) / 7 for widths in questions[:2]]
    with pytest.raises(RuntimeError, match="its 2 evaluations"):
        opened(questions[2])
    assert [c.widths for c in opened.history.candidates] == questions[:2]


def test_same_widths_count_twice_but_are_computed_once(journal, questions):
    judge = Judge()
    opened = journal(judge, 3)
    assert opened(questions[0]) == opened(questions[0])
    assert (len(judge.asked), len(opened.history), opened.computed) == (1, 2, 1)


def test_answers_are_replayed_and_not_computed_again(journal, questions, file, space):
    first = journal(Judge(), 4, seed=1)
    answers = [first(widths) for widths in questions[:3]]
    judge = Judge()
    second = journal(judge, 4, seed=1)
    assert second.resumed
    assert [second(widths) for widths in questions[:3]] == answers
    second(questions[3])
    assert judge.asked == questions[3:]
    assert second.computed == 4
    assert second.history.candidates[0].macs == space.macs(questions[0])
    assert file.read_text().count("\n") == 5


def test_seconds_of_a_killed_search_count(journal, questions):
    def slow(widths):
        time.sleep(0.02)
        return 50.0

    first = journal(slow, 4)
    for widths in [*questions[:2], questions[0]]:  # the third is known
        first(widths)
    assert 0.04 <= first.seconds < 1
    time.sleep(0.1)  # nobody searches: this does not count
    second = journal(slow, 4)
    assert 0.04 <= second.seconds < first.seconds
    for widths in [*questions[:2], questions[0]]:
        second(widths)
    second(questions[2])
    assert 0.06 <= second.seconds < first.seconds


def test_only_the_first_process_writes(journal, questions, file, monkeypatch):
    first = journal(Judge(), 4)
    first(questions[0])
    written = file.read_bytes()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("RANK", "1")
    judge = Judge()
    second = journal(judge, 4)
    for widths in questions[:2]:
        second(widths)
    assert judge.asked == questions[1:2]
    assert file.read_bytes() == written and list(file.parent.iterdir()) == [file]


def test_half_written_line_is_dropped(journal, questions, file):
    first = journal(Judge(), 4)
    for widths in questions[:2]:
        first(widths)
    text = file.read_text()
    file.write_text(text + text.splitlines()[-1][:-9])
    judge = Judge()
    second = journal(judge, 4)
    for widths in questions[:3]:
        second(widths)
    assert judge.asked == questions[2:3]
    assert [json.loads(line)["widths"] for line in file.read_text().splitlines()[1:]] == (
        questions[:3]
    )


@pytest.mark.parametrize(
    "damage", ["{", '{"widths": 3, "accuracy": 1, "seconds": 1}', '{"accuracy": 1}', "\udcff"]
)
def test_what_follows_a_damaged_line_is_dropped(journal, questions, file, damage):
    first = journal(Judge(), 4)
    for widths in questions[:3]:
        first(widths)
    lines = file.read_text().splitlines()
    lines[2] = damage
    file.write_bytes(("\n".join(lines) + "\n").encode(errors="surrogateescape"))
    judge = Judge()
    second = journal(judge, 4)
    for widths in questions[:3]:
        second(widths)
    assert judge.asked == questions[1:3]


def test_other_fingerprint_starts_anew_with_one_line(journal, questions, capsys):
    journal(Judge(), 4, seed=1)(questions[0])
    assert capsys.readouterr().out == ""
    judge = Judge()
    second = journal(judge, 4, seed=2)
    assert capsys.readouterr().out.count("\n") == 1
    assert not second.resumed
    second(questions[0])
    assert judge.asked == questions[:1]


def test_other_question_discards_the_rest(journal, questions, file, capsys):
    first = journal(Judge(), 4)
    for widths in questions[:3]:
        first(widths)
    judge = Judge()
    second = journal(judge, 4)
    second(questions[0])
    second(questions[3])
    second(questions[1])
    assert "answer 2 is to other widths" in capsys.readouterr().out
    assert judge.asked == [questions[3], questions[1]]
    kept = [json.loads(line)["widths"] for line in file.read_text().splitlines()[1:]]
    assert kept == [questions[0], questions[3], questions[1]]


def test_answer_that_is_no_number_is_refused(journal, questions):
    with pytest.raises(ValueError):
        journal(lambda widths: float("nan"), 4)(questions[0])
