"""What a person is told about a request: the steps, the reasons, and a share of the cost that is theirs."""

from __future__ import annotations

import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.control.history import History, ReplicaHistory
from swell.control.why import BEGUN, NOTES, at_most, complete, explain, traffic_now
from swell.decide.price import PoolCost
from swell.model.ends import end_told
from swell.model.environment import Environment
from swell.model.events import AppDeployed, NodeSeen, PlanCommitted, ReplicaSeen
from swell.model.failures import Failures
from swell.model.node import Node
from swell.model.plan import Plan, Start, Stop, Wait
from swell.model.replica import Phase
from swell.model.request import Led, RequestRecord, Together, is_id
from swell.model.workload import App, Entry, Method, Revision, Scaling, Workload
from swell.model.world import World

POOL = "default/a/f@rv-1"
COST = PoolCost(requests=4, idle_usd=8.0, starting_usd=2.0)
PHASES = (("held", 50.0), ("connect", 1.0), ("run", 5.0), ("send", 0.5))
TIMINGS = (("order", 1.0), ("template_exec", 20.0), ("template_load", 10.0), ("hand_over", 1.0), ("fork", 4.0))


def test_the_steps_of_a_cold_request_add_up_to_what_it_was_held() -> None:
    record = RequestRecord("q", POOL, "f", 100.0, 200, 56.5, PHASES, "r1-2", cold=True)
    past = ReplicaHistory("r1-2", POOL, "serving", "1 input", 100.001, "r1-1", 100.049, (*TIMINGS, ("listen", 3.0)))
    answer = explain(complete(record, past), past, COST)
    inner = [step for step in answer.steps if step.what.startswith("  ")]
    assert abs(sum(step.ms for step in inner) - 50.0) < 0.01
    assert all(step.note == NOTES[step.what.strip()] for step in answer.steps)
    assert "forked from template r1-1" in answer.reasons[0]
    assert (answer.idle_share_usd, answer.cold_share_usd) == (2.0, 0.5)


ms = st.floats(0.0, 5000.0)


@given(
    held=ms,
    planned=st.floats(-5000.0, 5000.0),
    took=st.floats(-100.0, 9000.0),
    timings=st.lists(st.tuples(st.sampled_from(["order", "fork", "enter", "listen"]), ms), max_size=6),
)
def test_steps_add_up_whenever_the_start_began_and_whatever_clocks_say(
    held: float, planned: float, took: float, timings: list[tuple[str, float]]
) -> None:
    """A request may come while a replica is being started that it then goes to."""
    record = RequestRecord("q", POOL, "f", 100.0, 200, held, (("held", held),), "r1-2", cold=True)
    begun = 100.0 + planned / 1000
    past = ReplicaHistory("r1-2", POOL, "serving", "1 input", begun, "", begun + took / 1000, tuple(timings))
    whole, *inner = explain(complete(record, past), past, COST).steps
    assert whole.ms == held
    assert abs(sum(step.ms for step in inner) - held) < 0.01
    assert all(step.ms > 0 for step in inner)


def test_of_a_start_that_was_under_way_the_rest_is_told() -> None:
    record = RequestRecord("q", POOL, "f", 100.0, 200, 700.0, (("held", 700.0),), "r1-2", cold=True)
    timings = (("order", 1.0), ("fork", 4.0), ("enter", 800.0), ("listen", 3.0))
    past = ReplicaHistory("r1-2", POOL, "serving", "1 input", 99.682, "", 100.49, timings)
    _, *inner = explain(complete(record, past), past, COST).steps
    assert [(step.what, round(step.ms)) for step in inner] == [("  enter", 487), ("  listen", 3), ("  table", 210)]
    assert inner[0].note == NOTES["enter"] + BEGUN


def test_who_never_had_a_replica_pays_for_none_and_is_told_why_there_was_none() -> None:
    record = RequestRecord("q", POOL, "f", 100.0, 503, 4000.0, (("held", 4000.0),), error="no_replica", cold=True)
    failures = Failures(
        3, 103.0, "enter_error", "warm raised: ValueError: no weights\nTraceback …\nValueError: no weights"
    )
    answer = explain(complete(record, None, failures=failures), None, COST)
    assert (answer.idle_share_usd, answer.cold_share_usd) == (0.0, 0.0)
    assert answer.reasons == (
        "no replica: its start failed 3 times in a row: its start-up code failed",
        "warm raised: ValueError: no weights",
    )


def test_how_its_replica_ended_is_told_with_its_last_words() -> None:
    record = RequestRecord("q", POOL, "f", 100.0, 502, 40.0, PHASES, "r1-2", error="replica_died")
    past = ReplicaHistory(
        "r1-2", POOL, "serving", "1 input", 90.0, ended_at=101.0, reason="out_of_memory", detail="limit"
    )
    alive = msgspec.structs.replace(past, ended_at=None)
    for kept in (complete(record, past), complete(record, alive)):
        assert explain(kept, past, COST).reasons[-2:] == ("it is gone since: its memory limit was reached", "limit")


@pytest.mark.parametrize(
    ("reason", "detail", "words"),
    [
        ("crashed", "exit code 3\nits last output line: secret", "its process crashed: exit code 3"),
        (
            "out_of_memory",
            "the kernel killed it\nits last output line: secret",
            "its memory limit was reached: memory=",
        ),
        ("stuck", "request secret, q2", "an input could not be stopped"),
        ("exited", "", "its process ended by itself"),
    ],
)
def test_callers_are_told_what_ended_a_replica_and_nothing_that_it_printed(
    reason: str, detail: str, words: str
) -> None:
    told = end_told(reason, detail)
    assert told.startswith(words)
    assert "secret" not in told


@pytest.mark.parametrize(
    ("reason", "why", "words"),
    [
        ("stopped", "its app was stopped", "its app was stopped"),
        ("reclaimed", "default/b/f waits", "what it held was needed (default/b/f waits)"),
        ("crashed", "", "its process crashed"),
    ],
)
def test_why_its_replica_was_ended_is_told_once(reason: str, why: str, words: str) -> None:
    record = RequestRecord("q", POOL, "f", 100.0, 502, 40.0, PHASES, "r1-2", error="replica_died")
    past = ReplicaHistory("r1-2", POOL, "serving", "1 input", 90.0, ended_at=101.0, reason=reason, stop_why=why)
    assert explain(complete(record, past), past, COST).reasons[-1] == f"it is gone since: {words}"


@pytest.mark.parametrize(("status", "error"), [(200, ""), (500, "exception"), (422, "bad_arguments")])
def test_who_was_done_before_its_replica_ended_is_not_told_of_that_end(status: int, error: str) -> None:
    record = RequestRecord("q", POOL, "f", 100.0, status, 40.0, PHASES, "r1-2", error=error)
    past = ReplicaHistory(
        "r1-2", POOL, "serving", "1 input", 90.0, ended_at=100.5, reason="crashed", detail="exit code 3"
    )
    alive = msgspec.structs.replace(past, ended_at=None)
    for kept in (complete(record, past), complete(record, alive)):
        answer = explain(kept, past, COST)
        assert "gone" not in " ".join(answer.reasons)
        assert answer.ended == ""


def test_the_request_that_could_not_be_stopped_is_told_that_it_ended_its_replica() -> None:
    record = RequestRecord("0b30b5fa04e1-2b", POOL, "f", 100.0, 504, 40.0, PHASES, "r1-2", error="deadline")
    ended = ReplicaHistory("r1-2", POOL, "serving", "1 input", 90.0, ended_at=101.0, reason="stuck")
    past = msgspec.structs.replace(ended, detail="request 0b30b5fa04e1-2b")

    def told(record: RequestRecord, past: ReplicaHistory) -> list[str]:
        reasons = explain(complete(record, past), past, COST).reasons
        return [line for line in reasons if "gone since" in line or "0b30b5fa04e1" in line]

    assert told(record, past) == ["it is gone since: this request could not be stopped"]
    both = msgspec.structs.replace(past, detail="request 0b30b5fa04e1-2a, 0b30b5fa04e1-2b")
    assert told(record, both) == ["it is gone since: this request could not be stopped, nor could 0b30b5fa04e1-2a"]
    beside = msgspec.structs.replace(record, id="0b30b5fa04e1-2c", status=502, error="replica_died")
    assert told(beside, past) == ["it is gone since: an input could not be stopped (request 0b30b5fa04e1-2b)"]
    other = msgspec.structs.replace(record, id="0b30b5fa04e1-2c")
    assert "gone" not in " ".join(explain(complete(other, past), past, COST).reasons)


def test_what_user_code_raised_is_pointed_to_and_unknown_cpu_is_not_told_as_none() -> None:
    record = RequestRecord("q", POOL, "f", 100.0, 500, 40.0, PHASES, "r1-2", error="exception", cpu_us=-1)
    answer = explain(complete(record, ReplicaHistory("r1-2", POOL, "serving", "1 input", 90.0)), None, COST)
    assert "user code raised; the traceback: swell logs a --request q" in answer.reasons
    assert answer.cpu_us == -1


def test_a_batch_is_told_and_its_log_is_that_of_each_of_its_requests() -> None:
    record = RequestRecord("q", POOL, "f", 100.0, 500, 40.0, PHASES, "r1-2", error="exception")
    past = ReplicaHistory("r1-2", POOL, "serving", "1 input", 90.0)

    def told(size: int, lead: str) -> tuple[str, ...]:
        batch = Together(size, 3.14, 9.0, lead)
        return complete(msgspec.structs.replace(record, batch=batch), past).reasons[-2:]

    assert told(8, "q") == (
        "batched with 7 others, waited 3.1 ms for it to begin",
        "user code raised; the traceback: swell logs a --request q",
    )
    assert told(2, "p") == (
        "batched with 1 other, waited 3.1 ms for it to begin",
        "user code raised; the traceback: swell logs a --request q",
    )
    assert told(1, "q")[0] == "in a batch of its own, waited 3.1 ms for it to begin"


def test_who_was_sent_more_than_once_is_told_so() -> None:
    record = RequestRecord("q", POOL, "f", 100.0, 200, 40.0, PHASES, "r1-2", attempts=2)
    past = ReplicaHistory("r1-2", POOL, "serving", "1 input", 90.0)
    told = "sent 2 times: what it was sent to before was busy or gone, and had taken nothing of it"
    assert told in complete(record, past).reasons
    assert "sent" not in " ".join(complete(msgspec.structs.replace(record, attempts=1), past).reasons)


def test_a_record_tells_the_same_after_its_replica_is_forgotten() -> None:
    record = RequestRecord("q", POOL, "f", 100.0, 200, 56.5, PHASES, "r1-2", cold=True)
    past = ReplicaHistory(
        "r1-2", POOL, "serving", "1 input", 100.001, "r1-1", 100.049, TIMINGS, ended_at=101.0, reason="idle"
    )
    kept = complete(record, past)
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(kept), type=RequestRecord)
    assert explain(stored, None, COST) == explain(kept, past, COST)


def test_a_record_of_an_older_build_is_read_as_one_nothing_more_is_known_of() -> None:
    older = RequestRecord("q", POOL, "f", 100.0, 200, 56.5, PHASES, "r1-2", cold=True)
    fields = {name: value for name, value in msgspec.structs.asdict(older).items() if name not in ("start", "reasons")}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(fields), type=RequestRecord) == older


def test_who_waits_for_room_is_told_so() -> None:
    record = RequestRecord("q", POOL, "f", 100.0, 504, 4000.0, (("held", 4000.0),), error="deadline", cold=True)
    told = explain(complete(record, None, waiting="node local has 0 of 8 cores free"), None, COST).reasons
    assert told == ("no replica, held 4000 ms: node local has 0 of 8 cores free",)


def test_who_was_ended_while_it_waited_is_told_what_it_waited_for() -> None:
    cold = RequestRecord("q", POOL, "f", 100.0, 504, 1033.0, (("held", 1033.0),), error="deadline", cold=True)
    warm = msgspec.structs.replace(cold, cold=False)
    limit = "max_containers=1 allows no more replicas"
    serving = ReplicaHistory("r1-2", POOL, "serving", "1 input", 100.011)
    template = ReplicaHistory("r1-1", POOL, "template", "1 input", 100.011)
    over = [
        msgspec.structs.replace(serving, ready_at=100.9),
        msgspec.structs.replace(serving, ended_at=100.9),
        msgspec.structs.replace(serving, planned_at=101.5),
    ]

    def told(record: RequestRecord, *siblings: ReplicaHistory, full: str = "") -> str:
        (reason,) = complete(record, None, siblings=siblings, full=full).reasons
        return reason

    starting = "no replica, held 1033 ms: a replica was starting (r1-2, begun 1022 ms before)"
    assert told(cold, *over, template, serving) == starting
    # As it is remembered when the record comes, which may be after its start was over.
    assert told(warm, msgspec.structs.replace(serving, ready_at=101.2), full=limit) == starting
    loading = "no replica, held 1033 ms: its template was being loaded (r1-1, begun 1022 ms before)"
    assert told(cold, *over, template) == loading
    assert told(warm, *over) == "no replica, held 1033 ms: every slot was taken"
    assert told(cold, *over, full=limit) == f"no replica, held 1033 ms: every slot was taken: {limit}"
    assert told(cold, *over) == "no replica, held 1033 ms"
    refused = msgspec.structs.replace(warm, status=429, error="too_many_held", phases_ms=(("held", 0.02),))
    assert told(refused, serving, full=limit) == f"no replica: {limit}"


def test_who_waited_for_a_slot_is_told_so_and_why_there_were_not_more() -> None:
    past = ReplicaHistory("r1-2", POOL, "serving", "1 input", 90.0, None, 91.0)
    waited = RequestRecord("q", POOL, "f", 100.0, 200, 2556.0, (("held", 2549.0),), "r1-2")
    limit = "max_containers=1 allows no more replicas"
    assert complete(waited, past, full=limit).reasons[-1] == f"every slot was taken when the request came: {limit}"
    assert complete(waited, past).reasons[-1] == "every slot was taken when the request came"
    at_once = msgspec.structs.replace(waited, phases_ms=(("held", 0.04),))
    assert complete(at_once, past, full=limit).reasons[-1] == "it was ready when the request came"


@pytest.mark.parametrize(("most", "words"), [(2, ""), (1, "max_containers=1 allows no more replicas")])
def test_what_keeps_a_pool_from_having_more(most: int, words: str) -> None:
    revision = Revision(
        Environment("/usr/bin/python3", "3.11"), "sha256-0", Entry("m", "f", "function", (Method("f"),))
    )
    workload = Workload("default", "a", "f", revision.id, Scaling(max_replicas=most))
    world = World(epoch=1)
    world.apply(NodeSeen(1.0, Node("n1", 4.0, 4096)))
    world.apply(AppDeployed(1.0, App("default", "a", (workload,), (revision,))))
    started = Start("r1-1", workload.pool, "n1", "serving", "started for 1 waiting request")
    world.apply(PlanCommitted(2.0, Plan(2.0, (workload.pool,), actions=(started,))))
    assert at_most(world, workload.pool) == words
    assert at_most(world, POOL) == ""
    stopped = Stop("r1-1", "idle", 1.0, "not needed")
    world.apply(PlanCommitted(3.0, Plan(3.0, (workload.pool,), actions=(stopped,))))
    assert at_most(world, workload.pool) == "", "one that drains is in nobody's way"


def test_who_waited_for_room_and_got_it_is_told_what_there_was_to_wait_for() -> None:
    history, port = History(), "it asks for port 8123; another replica has it on node local"
    history.planned(Plan(100.0, (POOL,), waits=(Wait(POOL, port),)))
    history.planned(Plan(130.0, ("default/b/g@rv-2",)))
    begun = Start("r1-2", POOL, "local", "serving", "started for 1 waiting request")
    history.planned(Plan(160.0, (POOL,), actions=(begun,)))
    history.planned(Plan(170.0, (POOL,), actions=(msgspec.structs.replace(begun, replica="r1-3"),)))
    record = RequestRecord("q", POOL, "f", 100.0, 200, 61_000.0, (("held", 60_500.0),), "r1-2", cold=True)
    told = explain(complete(record, history.get("r1-2")), None, COST).reasons
    assert told[-1] == f"it could not be started at once: {port}"
    for other, replica in ((record, "r1-3"), (msgspec.structs.replace(record, cold=False), "r1-2")):
        assert port not in " ".join(complete(other, history.get(replica)).reasons)


@pytest.mark.parametrize("text", ["BOGUS", "", "nothing-1", "0b30b5fa04e1", "0b30b5fa04e1-", "0B30B5FA04E1-1", "a/b"])
def test_what_can_be_no_request_id(text: str) -> None:
    assert not is_id(text)


@given(st.integers(0, 2**64 - 1))
def test_every_id_a_gateway_gives_can_be_one(number: int) -> None:
    assert is_id(f"{uuid.uuid4().hex[:12]}-{number:x}")


@pytest.mark.parametrize(
    ("led", "now", "words"),
    [
        (Led(3), "", ["went to v3 (rv-1), which had the traffic"]),
        (Led(3), "v4 has it since", ["went to v3 (rv-1), which had the traffic; v4 has it since"]),
        (Led(3, "tag", "canary"), "v4 has it since", ["went to v3 (rv-1): it was asked for as 'canary'"]),
        (Led(3, "header", "x-v"), "", ["went to v3 (rv-1): requests with its x-v do"]),
        (
            Led(3, "hash", "x-u", 12.5),
            "",
            ["went to v3 (rv-1), as all with the same x-u: 12.5 % of the traffic is its share"],
        ),
        (Led(3, "lot", "", 10), "", ["went to v3 (rv-1), by lot: 10 % of the traffic is its share"]),
        (
            Led(3, "lot", "x-u", 10),
            "",
            ["went to v3 (rv-1), by lot (the request had no x-u): 10 % of the traffic is its share"],
        ),
        (Led(), "", []),
        (Led(), "the new code is starting", ["the new code is starting"]),
        (None, "v4 has it since", []),
    ],
)
def test_what_led_a_request_to_its_version_is_told(led: Led | None, now: str, words: list[str]) -> None:
    record = RequestRecord("q", POOL, "f", 100.0, 200, 40.0, PHASES, "r1-2", led=led)
    reasons = complete(record, None, now=now).reasons
    assert [*reasons[:-1]] == words
    assert reasons[-1].startswith("replica r1-2")


def test_where_the_traffic_goes_meanwhile() -> None:
    def deployed(version: int) -> tuple[Workload, App]:
        environment = Environment("/usr/bin/python3", "3.11")
        revision = Revision(environment, f"sha256-{version}", Entry("m", "f", "function", (Method("f"),)))
        workload = Workload("default", "a", "f", revision.id, version=version)
        return workload, App("default", "a", (workload,), (revision,))

    world = World(epoch=1)
    world.apply(NodeSeen(1.0, Node("n1", 4.0, 4096)))
    one, app = deployed(1)
    world.apply(AppDeployed(1.0, app))
    assert traffic_now(world, one.pool) == ""
    two, app = deployed(2)
    world.apply(AppDeployed(2.0, msgspec.structs.replace(app, previous=(one,))))
    assert world.rolling
    assert traffic_now(world, one.pool) == "v2 is starting; v1 serves until it is ready"
    world.apply(AppDeployed(3.0, app))
    assert traffic_now(world, one.pool) == "v2 has it since"
    assert traffic_now(world, two.pool) == ""
    assert traffic_now(world, "default/b/g@rv-2") == ""


def test_what_its_replica_really_had_is_told() -> None:
    history = History()
    begun = Start("r1-2", POOL, "local", "serving", "started for 1 waiting request")
    history.planned(Plan(100.0, (POOL,), actions=(begun,)))
    record = RequestRecord("q", POOL, "f", 100.0, 200, 40.0, PHASES, "r1-2")
    assert "what held it" not in " ".join(complete(record, history.get("r1-2")).reasons)
    had = ("memory 512 MiB (cgroup v2)", "sandbox: mount, pid", "sandbox without landlock")
    history.seen(ReplicaSeen(101.0, "r1-2", Phase.STARTING, POOL, "serving", "local", applied=had))
    history.seen(ReplicaSeen(102.0, "r1-2", Phase.READY, POOL, "serving", "local"))
    told = complete(record, history.get("r1-2")).reasons[-1]
    assert told == "what held it: memory 512 MiB (cgroup v2); sandbox: mount, pid; sandbox without landlock"
