"""How the command line speaks: lines on standard output, warnings on standard error, of several processes the first."""

from __future__ import annotations

import logging
import sys

import pytest

from segda.ground.speaking import complain, mark_lines, spoken

log = logging.getLogger("segda.somewhere")


def test_lines_go_to_standard_output_and_warnings_to_standard_error(capsys):
    with spoken():
        log.info("one\ntwo \x1b[31m 100%")
        log.warning("%s of %s\n", 3, 4)
        log.debug("nothing")
    out, err = capsys.readouterr()
    assert out == "one\ntwo \\x1b[31m 100%\n"
    assert err == "segda: warning: 3 of 4\\n\n"


def test_a_label_marks_each_line_until_the_next_block(capsys):
    with spoken():
        mark_lines("a [b]\x1b")
        log.info("one\ntwo")
        log.warning("three")
        complain("four")
    out, err = capsys.readouterr()
    assert out == "[a [b]\\x1b] one\n[a [b]\\x1b] two\n"
    assert err == "[a [b]\\x1b] segda: warning: three\n[a [b]\\x1b] segda: four\n"
    with spoken():
        log.info("five")
    assert capsys.readouterr().out == "five\n"


def test_afterwards_logging_is_as_it_was(capsys):
    package = logging.getLogger("segda")
    before = list(package.handlers), package.level, package.propagate
    with pytest.raises(ZeroDivisionError), spoken():
        raise ZeroDivisionError
    assert (package.handlers, package.level, package.propagate) == before
    log.info("nothing")
    assert capsys.readouterr() == ("", "")


def test_a_handler_of_the_root_logger_says_nothing_twice(capsys):
    root, other = logging.getLogger(), logging.StreamHandler(sys.stdout)
    root.addHandler(other)
    try:
        with spoken():
            log.info("once")
    finally:
        root.removeHandler(other)
    assert capsys.readouterr().out == "once\n"


def test_of_several_processes_the_first_speaks_and_each_of_what_concerns_it_alone(capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, expected in (("0", ("of all\nof one\n", "segda: warning: of all\n")), ("1", ("of one\n", ""))):
        monkeypatch.setenv("RANK", rank)
        with spoken():
            log.info("of all")
            log.warning("of all")
            log.info("of one", extra={"every_rank": True})
        assert capsys.readouterr() == expected
