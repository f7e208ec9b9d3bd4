"""The book of answers: what was answered once is not answered again, and nothing else is kept."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.bench.test_evaluation import exam_of
from urbancli.bench.answers import AnswerBook
from urbancli.bench.evaluation import Answers, Exam, answer_together, make_exam


class Asked:
    """Answers exams for real, and remembers which."""

    def __init__(self, features: np.ndarray) -> None:
        self.features = features
        self.exams: list[str] = []

    def __call__(self, exams: Sequence[Exam]) -> Sequence[Answers]:
        self.exams += [exam.task.name for exam in exams]
        return answer_together(exams, self.features)


def exams_of(*names: str) -> tuple[list[Exam], np.ndarray]:
    task, values, split, touch, x = exam_of()
    rng = np.random.default_rng(1)
    made = [
        make_exam(dataclasses.replace(task, name=name), values + rng.normal(size=120), split, touch)
        for name in names
    ]
    return made, x


def same(first: Answers, second: Answers) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("predicted", "baseline", "scored", "imputed", "unconverged")
    )


def test_what_was_answered_is_read(tmp_path: Path) -> None:
    exams, x = exams_of("a", "b")
    asked = Asked(x)
    first = AnswerBook(tmp_path).answers(["facts"], exams, asked)
    again = AnswerBook(tmp_path).answers(["facts"], exams, asked)
    assert asked.exams == ["a", "b"]
    assert all(same(*pair) for pair in zip(first, again, strict=True))


def test_only_what_is_new_is_asked(tmp_path: Path) -> None:
    exams, x = exams_of("a", "b", "c")
    asked, book = Asked(x), AnswerBook(tmp_path)
    book.answers(["facts"], exams[:2], asked)
    book.answers(["facts"], [exams[2], exams[0]], asked)
    assert asked.exams == ["a", "b", "c"]
    changed = dataclasses.replace(exams[0], target=exams[0].target + 1.0)
    book.answers(["facts"], [changed], asked)
    assert asked.exams == ["a", "b", "c", "a"]
    book.answers(["other facts"], exams[:1], asked)
    assert asked.exams[-1] == "a" and len(asked.exams) == 5
    assert len(list(tmp_path.iterdir())) == 2


def test_a_broken_file_is_answered_anew(tmp_path: Path) -> None:
    exams, x = exams_of("a")
    asked, book = Asked(x), AnswerBook(tmp_path)
    first = book.answers(["facts"], exams, asked)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    again = book.answers(["facts"], exams, asked)
    assert asked.exams == ["a", "a"] and same(first[0], again[0])
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(byte ^ 0xFF for byte in content[4:60])
    path.write_bytes(bytes(content))
    assert same(book.answers(["facts"], exams, asked)[0], first[0]) and len(asked.exams) == 3
    assert not [one for one in tmp_path.iterdir() if one.suffix == ".part"]


def test_classes_keep_their_type(tmp_path: Path) -> None:
    task, values, split, touch, x = exam_of("classification")
    exam = make_exam(task, values, split, touch)
    asked, book = Asked(x), AnswerBook(tmp_path)
    first = book.answers([], [exam], asked)[0]
    again = book.answers([], [exam], asked)[0]
    assert same(first, again) and again.predicted.dtype == first.predicted.dtype
    assert asked.exams == ["t"]
