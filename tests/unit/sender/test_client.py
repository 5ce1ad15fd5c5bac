"""The client's state machine: no sequence of replies leads anywhere undefined."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_core.model import wire
from mailfleet_core.model.reply import Reply
from mailfleet_core.smtp.client import Body, Offered, State, Step, Transaction, dot_stuffed, offered
from mailfleet_sender.decisions.settle import settle

codes = st.one_of(
    st.sampled_from([0, 250, 251, 354, 421, 450, 503, 550, 552]), st.integers(min_value=200, max_value=599)
)
replies = st.lists(
    st.builds(Reply, codes, st.sampled_from(["", "2.0.0", "4.2.1", "5.1.1"]), st.just("said")), max_size=20
)
offers = st.builds(
    Offered, st.booleans(), st.sampled_from([-1, 0, 5, 5000]), st.booleans(), st.booleans(), st.booleans()
)
addresses = st.sampled_from(["a@x.test", "ü@x.test", "b@x.test>\r\nDATA", "c@x.test", "\ud800@x.test", ""])


def unit(to: list[str], reverse_path: str = "s@x.test", **changes: bool) -> wire.Unit:
    body = wire.BodyRef(0, (1,), 100)
    envelope = wire.Envelope(b"m" * 16, reverse_path, "t", "bulk", "default", body, 1.0, 2.0, **changes)
    return wire.Unit(b"u" * 18, "x", envelope, tuple(wire.Recipient(i, address) for i, address in enumerate(to)))


class Server:
    """Applies replies to a transaction as the shell does and keeps what went out."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.written = b""
        self.steps = [self.do(transaction.start())]

    def do(self, step: Step) -> Step:
        if step is Step.WRITE:
            self.written += self.transaction.output
        elif step is Step.BODY:
            self.written += b"".join(self.transaction.body.pieces)
            self.transaction.body_written()
        return step


@settings(max_examples=300)
@given(st.lists(addresses, min_size=1, max_size=4), offers, replies, st.booleans(), st.booleans(), st.booleans())
def test_every_recipient_has_one_outcome_after_any_replies_and_a_lost_connection(
    to: list[str], offering: Offered, said: list[Reply], lmtp: bool, reset: bool, eight_bit: bool
) -> None:
    mail = unit(to, eight_bit=eight_bit)
    server = Server(Transaction(mail, Body([b"x\r\n\xff\r\n"]), offering, lmtp, reset))
    transaction = server.transaction
    answered: list[object] = list(transaction.answers)
    for reply in said:
        step = server.do(transaction.receive(reply))
        assert all(a is b for a, b in zip(answered, transaction.answers, strict=True) if a is not None)
        answered = list(transaction.answers)
        assert (step is Step.DONE) == (transaction.state == State.DONE)
    transaction.lost("gone")
    outcomes = settle(mail.recipients, transaction.answers)
    assert [outcome.index for outcome in outcomes] == list(range(len(to)))
    assert None not in transaction.answers
    for outcome in outcomes:
        assert outcome.enhanced[0] == {"delivered": "2", "deferred": "4", "bounced": "5"}[outcome.verdict]
        assert outcome.verdict != "delivered" or (outcome.phase == "dot" and 200 <= outcome.code < 300)
    lines = server.written.split(b"\r\n")
    assert all(b"\r" not in line and b"\n" not in line for line in lines)
    assert server.written.endswith(b"\r\n") or not server.written


@given(st.lists(st.sampled_from(["ok", "no", "later"]), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_pipelined_and_stepwise_say_and_mean_the_same(fates: list[str], lmtp: bool, reset: bool) -> None:
    codes_of = {"ok": Reply(250, "", ""), "no": Reply(550, "", ""), "later": Reply(450, "", "")}
    good = [Reply(250, "", "")] * (1 + reset)
    accepted = fates.count("ok")
    ends = [Reply(250, "", "")] * (accepted if lmtp else 1)
    said = [*good, *(codes_of[fate] for fate in fates)]
    told = []
    for pipelining in (True, False):
        mail = unit([f"r{i}@x.test" for i in range(len(fates))])
        server = Server(Transaction(mail, Body([b"x\r\n"]), Offered(pipelining), lmtp, reset))
        refused = Reply(503, "", "no valid recipients")
        rest = [Reply(354, "", ""), *ends] if accepted else ([refused] if pipelining else [])
        steps = [server.do(server.transaction.receive(reply)) for reply in [*said, *rest]]
        assert steps[-1] is Step.DONE
        told.append((server.transaction.answers, server.transaction.reset_needed, server.transaction.reusable))
        assert server.written.count(b"DATA\r\n") == (1 if accepted or pipelining else 0)
    assert told[0] == told[1]


@given(st.lists(st.sampled_from([b".", b"\r\n", b"x", b"..", b"\r\n.", b"\r", b"\n", b""]), max_size=30))
def test_dots_are_doubled_at_the_start_of_lines_however_the_message_is_cut(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    out = b"".join(dot_stuffed(chunks))
    expected = (b"\r\n" + whole).replace(b"\r\n.", b"\r\n..")[2:]
    expected += b"" if (b"\r\n" + whole).endswith(b"\r\n") else b"\r\n"
    assert out == expected + b".\r\n"


def test_what_the_server_announced_is_understood_and_nonsense_is_not_a_limit() -> None:
    assert offered({"size": "100", "pipelining": ""}) == Offered(pipelining=True, size=100)
    for odd in ("", "many", "-5", "9" * 30, "1 2"):
        assert offered({"size": odd}).size == 0
    assert offered({}).size == -1


def test_an_early_acceptance_of_half_a_message_is_not_believed() -> None:
    transaction = Transaction(unit(["a@x.test"]), Body([b"x\r\n"]), Offered(pipelining=True))
    transaction.start()
    for code in (250, 250, 354):
        transaction.receive(Reply(code, "", ""))
    assert transaction.state == State.BODY
    transaction.receive(Reply(250, "2.0.0", "already"))
    (outcome,) = settle(unit(["a@x.test"]).recipients, transaction.answers)
    assert (outcome.verdict, outcome.phase) == ("deferred", "data")
    assert not transaction.reusable


@settings(max_examples=300)
@given(
    st.lists(addresses, min_size=1, max_size=3), st.lists(st.sampled_from([250, 251, 354, 421, 450, 550]), max_size=6),
    st.booleans(), st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip
def test_replies_that_let_everybody_through_mean_the_same_together_as_one_by_one(
    to: list[str], codes_said: list[int], through: bool, pipelining: bool, lmtp: bool, reset: bool
) -> None:
    together, one_by_one = (Transaction(unit(to), Body([b"x\r\n"]), Offered(pipelining), lmtp, reset) for _ in range(2))
    if together.start() is one_by_one.start() is Step.DONE:
        return
    said = [Reply(250, "", "")] * (len(together._places) + 1) + [Reply(354, "", "")] if through else []
    said = said or [Reply(code, "", "") for code in codes_said]
    before = everything(together)
    if not together.let_through(said):
        assert everything(together) == before
        return
    steps = [one_by_one.receive(reply) for reply in said]
    assert steps == [Step.WAIT] * (len(said) - 1) + [Step.BODY]
    assert everything(together) == everything(one_by_one)


def everything(transaction: Transaction) -> list[object]:
    kept = (getattr(transaction, name) for name in Transaction.__slots__ if name != "body")
    return [list(value) if isinstance(value, list) else value for value in kept]
