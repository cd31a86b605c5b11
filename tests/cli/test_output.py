"""Do values read well, and does nothing of them get lost?"""

from __future__ import annotations

import io
import sys
from contextlib import suppress

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from swell.cli.options import Duration, split_app
from swell.cli.output import bar, beside, duration, mebibytes, money, printable, progress, table
from swell.cli.why import cost, listing, story
from swell.model.errors import SwellError
from swell.wire.api import RequestRow, Why, WhyStep

WHY = Why(
    request="0b30b5fa04e1-2b",
    workload="default/hello/greet",
    method="greet",
    status=200,
    error="",
    received_at=0.0,
    total_ms=40.0,
    cold=True,
    replica="r1-1",
    steps=(WhyStep("held", 30.0, "waited"), WhyStep("  fork", 4.0), WhyStep("run", 10.0, "in the replica")),
    reasons=("one request waits → 1 replica",),
    cpu_us=2500,
    marginal_usd=1e-6,
    idle_share_usd=2e-6,
    cold_share_usd=0.0,
)


@pytest.mark.parametrize(
    ("written", "shown", "coloured"),
    [
        ("plain\ttext, grün", "plain\ttext, grün", "plain\ttext, grün"),
        ("\x1b[1;31mred\x1b[0m", "red", "\x1b[1;31mred\x1b[0m"),
        ("\x1b[2J\x1b[10;1Hover\x1b[K\x1b[?25l", "over", "over"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "alink", "alink"),
        ("\x1bPq#0\x1b\\\x1b(Bb\x1b7\x1bc\x9b2Jc\x9d0;t\x9c", "bc", "bc"),
        ("ring\x07 back\x08 null\x00 \x7f\x85", "ring back null ", "ring back null "),
        (" 10%\r 20%\r100%\r", " 10%  20% 100%", " 10%  20% 100%"),
        # What is not whole steers nothing, and hides nothing.
        ("\x1b]0;secret", "0;secret", "0;secret"),
        ("\x1b[31", "31", "31"),
    ],
)
def test_what_others_wrote_does_not_steer_the_terminal(written: str, shown: str, coloured: str) -> None:
    assert printable(written, colours=False) == shown
    assert printable(written, colours=True) == coloured


@given(st.text(st.sampled_from("\x1b[]0;1m\x07\\\x9b\r\nJa ")))
def test_no_control_is_left_of_any_text(text: str) -> None:
    assert not [c for c in printable(text, colours=False) if c < " " or "\x7f" <= c <= "\x9f"]


words = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=12)


@given(st.lists(st.tuples(words, words, words), max_size=5))
def test_a_table_keeps_every_cell_in_its_column(rows: list[tuple[str, str, str]]) -> None:
    heads = ("A", "BB", "CCC")
    lines = table(heads, rows, right=("BB",)).splitlines()
    assert [tuple(line.split()) for line in lines] == [heads, *rows]
    assert len({len(line) - len(cells[2]) for line, cells in zip(lines, [heads, *rows], strict=True)}) == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.lists(st.tuples(words, words, st.lists(words, max_size=30)), max_size=3), st.integers(26, 120))
@example([("0", "0", ["WHY"])], 20)
def test_on_a_terminal_a_long_last_cell_goes_on_and_nothing_is_wider(
    rows: list[tuple[str, str, list[str]]], width: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Terminal())
        patch.setenv("COLUMNS", str(width))
        text = table(("A", "B", "WHY"), [(a, b, " ".join(why)) for a, b, why in rows])
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    # No word of the last cell is lost, however little room there is.
    found = [word for line in lines for word in (line.split() if line.startswith(" ") else line.split()[2:])]
    assert found == ["WHY", *(word for _, _, why in rows for word in why)]


cells = st.one_of(words, st.just(""), st.text("x-/ ", max_size=70))


@given(st.lists(st.tuples(cells, cells, cells, cells, cells), max_size=3), st.integers(12, 120))
@example([("", "", "", "", "")], 12)
def test_on_a_terminal_no_cell_is_lost_however_narrow_it_is(
    rows: list[tuple[str, str, str, str, str]], width: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Terminal())
        patch.setenv("COLUMNS", str(width))
        text = table(("A", "BB", "C", "D", "WHY"), rows, right=("BB", "WHY"))
    assert max(map(len, text.splitlines())) <= width
    assert "".join(text.split()) == "".join("".join(("A", "BB", "C", "D", "WHY", *sum(rows, ()))).split())


def test_what_has_no_room_in_a_line_is_below_in_every_row() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Terminal())
        patch.setenv("COLUMNS", "20")
        rows = [("r1-1", "n" * 30, "1", "one request waits for it"), ("r1-2", "short", "12", "kept")]
        text = table(("ID", "NAME", "BUSY", "WHY"), rows, right=("BUSY",), last_min=8)
    assert text.splitlines() == [
        "ID",
        "    NAME",
        "    BUSY  WHY",
        "r1-1",
        "    nnnnnnnnnnnnnnnn",
        "    nnnnnnnnnnnnnn",
        "       1  one",
        "          request",
        "          waits for",
        "          it",
        "r1-2",
        "    short",
        "      12  kept",
    ]


def test_a_name_that_has_no_room_beside_the_others_is_whole_below_them() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Terminal())
        patch.setenv("COLUMNS", "40")
        text = table(("COST", "POOL"), [("1" * 20, "shop/price@rv-0123456789ab")], last_min=12)
    assert text.splitlines()[1:] == ["1" * 20, "    shop/price@rv-0123456789ab"]


@given(st.text(max_size=60), st.text(max_size=200), st.integers(20, 120))
def test_what_is_under_way_stays_in_one_line(title: str, line: str, width: int) -> None:
    shown = beside(title, line, width)
    assert len(shown) <= max(width - len(title) - 5, 1)
    assert line.startswith(shown.removesuffix("…")) or shown == line


def test_what_has_no_room_is_cut_between_words() -> None:
    line = "waiting for a replica: r14-27 is starting"
    title = "Calling hello/greet"
    assert beside(title, line, 80) == line
    assert beside(title, line, 60) == "waiting for a replica: r14-27 is…"
    assert beside(title, line, 51) == "waiting for a replica…"


@pytest.mark.parametrize("text", ["0", "0s", "0.0m", "-1", "nan", "1e20", "99999999999w", "soon", ""])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a length of time above 0"):
        Duration().convert(text, None, None)


@given(st.floats(0.06, 1e7))
def test_a_duration_is_short_and_true(seconds: float) -> None:
    text = duration(seconds)
    assert len(text) <= 7
    read = Duration().convert(text, None, None)
    assert abs(read - seconds) <= (
        0.051 if seconds < 10 else 0.5 if seconds < 3599 else 60 if seconds < 86399 else 3600
    )


@given(st.floats(0, 1e7))
def test_money_is_short_and_true(usd: float) -> None:
    text = money(usd)
    assert len(text) <= len("$10,000,000.00")
    assert "e" not in text
    if text.startswith("<"):
        assert 0 < usd < float(text.removeprefix("< $"))
    else:
        assert float(text[1:].replace(",", "")) == pytest.approx(usd, rel=0.05, abs=0.00005)


@given(st.floats(0, 1e7), st.floats(0, 1e7))
def test_more_money_never_reads_as_less(one: float, other: float) -> None:
    def worth(text: str) -> float:
        return float(text[1:].replace(",", "")) if text.startswith("$") else 1e-9

    assert (worth(money(one)) <= worth(money(other))) or one > other


@given(st.floats(1e-12, 0.009))
def test_a_request_is_counted_by_the_million_with_its_parts(usd: float) -> None:
    text = cost(replace(WHY, marginal_usd=usd / 2, idle_share_usd=usd / 4, cold_share_usd=usd / 4))
    part = money(usd / 4 * 1e6)
    assert text == (
        f"cost {money(usd * 1e6)} per million such requests: {money(usd / 2 * 1e6)} its own work "
        f"(2.5 ms CPU, and memory while it ran), {part} its share of idle time, {part} of start-ups"
    )


def test_the_cpu_of_what_was_cut_off_is_not_known() -> None:
    assert "(CPU not known, and memory" in cost(replace(WHY, cpu_us=-1))


def test_who_had_no_replica_costs_nothing() -> None:
    free = replace(WHY, marginal_usd=0.0, idle_share_usd=0.0, cold_share_usd=0.0)
    assert cost(free) == "cost nothing: no replica worked on it"


def test_a_dear_request_has_a_price_of_its_own() -> None:
    assert cost(replace(WHY, marginal_usd=0.25)).startswith("cost $0.25 for this request:")


@given(st.floats(0, 1e6), st.floats(0.001, 1e6))
def test_a_bar_is_within_its_width_and_there_for_anything(value: float, whole: float) -> None:
    drawn = bar(value, whole, width=10)
    assert len(drawn) <= 10
    assert bool(drawn) == (value > 0)
    assert value < whole or drawn == "█" * 10


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("1.5", 1.5), (7, 7)]
)
def test_lengths_of_time(text: object, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "m", "10 minutes", "-5", "nan", "inf", "1m2"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


def test_names_and_sizes() -> None:
    assert split_app("a", "n") == ("n", "a")
    assert split_app("m/a", "n") == ("m", "a")
    assert [mebibytes(size) for size in (12.4, 1023, 1536)] == ["12M", "1023M", "1.5G"]


def test_the_story_of_a_request() -> None:
    text = story(WHY)
    for part in ("0b30b5fa04e1-2b  hello/greet  200  40.0 ms", ", cold", "held", "30.0", "waited"):
        assert part in text
    assert "- one request waits → 1 replica" in text
    assert "cost $3.00 per million such requests: $1.00 its own work (2.5 ms CPU" in text
    assert text.index("held") < text.index("fork") < text.index("in the replica")


def test_the_story_of_a_cold_request_fits_a_terminal() -> None:
    within = [("plan", 0.4), ("order", 0.2), ("hand_over", 1.0), ("fork", 2.9), ("enter", 0.0), ("listen", 3.3)]
    steps = [WhyStep("held", 15.0, "waited at the gateway for a free replica")]
    steps += [WhyStep(f"  {name}", ms, f"what {name} is, in a few words") for name, ms in within]
    steps += [WhyStep("connect", 0.2, "reached the replica's socket"), WhyStep("run", 0.4, "in the replica")]
    reasons = ("replica r1-7, forked from template r1-6, started for 1 waiting request",)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Terminal())
        patch.setenv("COLUMNS", "80")
        lines = story(replace(WHY, steps=tuple(steps), reasons=reasons)).splitlines()
    assert len(lines) <= 14
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:9]] == ["held", "hand_over", "fork", "listen", "3", "connect", "run"]
    # What is short in a start-up is one line, with its sum; what the request itself went through is never joined.
    assert lines[6].split()[:4] == ["3", "more", "0.6", "ms"]
    assert lines[6].endswith("each under 1 ms: plan, order, enter")


def test_an_error_does_not_say_again_what_was_told_on_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    def failed(*told: str) -> SwellError:
        error = SwellError("environment", "It could not be installed.", detail="no leek\n  cause: winter")
        error.add_note(error.detail)
        with suppress(SwellError), progress("Deploying") as tell:
            for line in told:
                tell(line)
            raise error
        return error

    said = failed("making an environment", "no leek", "no leek", "  cause: winter")
    assert (said.detail, said.__notes__) == ("", [])
    assert capsys.readouterr().err.count("no leek") == 1
    unsaid = failed("making an environment")
    assert (unsaid.detail, unsaid.__notes__) == ("no leek\n  cause: winter", ["no leek\n  cause: winter"])


def test_requests_are_listed_as_they_would_be_called() -> None:
    row = RequestRow("0b30b5fa04e1-2b", "default/mood/Mood", "score", 100.0, 500, "exception", 12.34, True, 0.0)
    text = listing(
        [row, replace(row, workload="team/hello/greet", method="greet", status=200, error="", cold=False)], 160.0
    )
    assert [line.split() for line in text.splitlines()[1:3]] == [
        ["0b30b5fa04e1-2b", "1m00s", "mood/Mood.score", "500", "exception", "12.3", "cold"],
        ["0b30b5fa04e1-2b", "1m00s", "team/hello/greet", "200", "12.3"],
    ]
