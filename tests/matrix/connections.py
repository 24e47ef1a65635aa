"""What concerns the whole connection: other protocols, GOAWAY, and SETTINGS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attrs import evolve

from matrix.cells import ANSWERED, AWAY, GOES_ON, LEFT, UNHEALTHY, Effect, Fault, Senseless
from matrix.rows import CLOSED, MUTE, NO_STREAM_YET, fatal, harmless, head, lost
from viewreg import UnavailableError
from viewreg.testing.frames import ErrorCode, Setting, goaway, settings, window_update

if TYPE_CHECKING:
    from matrix.rows import Wire

PROBE_TIMEOUT: Final = 5.0  # seconds (design, 5)
PATIENCE: Final = 1.0  # seconds of a caller that gives up
UNLIMITED: Final = 2**31 - 1

ONCE: Final = Senseless("it can only come first on a connection; what comes later is another row")
NO_ERROR: Final = "GOAWAY NO_ERROR"  # our own goodbye

# -- other protocols --

HTTP1: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
GARBAGE: Final = bytes(range(255, 155, -1))

END: Final = "the server closed the connection"
NOT_HTTP2: Final = lost("...does not speak HTTP/2... (PROTOCOL_ERROR)", "GOAWAY PROTOCOL_ERROR")["connect"]

PROTOCOLS: Final = [
    # A server begins with SETTINGS (RFC 9113, 3.4). In the middle of a connection the words are the head of a frame, of
    # one that is larger than we allow (4.2).
    fatal("HTTP/1.1", lambda _: HTTP1, "FRAME_SIZE_ERROR", bare=True, connect=NOT_HTTP2),
    fatal("garbage", lambda _: GARBAGE, "FRAME_SIZE_ERROR", bare=True, connect=NOT_HTTP2),
    Fault(
        name="close after the preface",
        bare=True,
        ends=True,
        idle=ONCE,
        connect=lost(f"{END} {MUTE}", NO_ERROR)["connect"],
        unary=ONCE,
        stream=ONCE,
        probe=ONCE,
        close=ONCE,
    ),
    Fault(
        name="SETTINGS and close",
        ends=True,
        **{
            **lost(END, NO_ERROR),
            "connect": Effect(view=AWAY, history=("connected", f"connection lost: {END}"), sends=(NO_ERROR,)),
            "close": evolve(CLOSED, within=0.05),  # nobody is left to whom the rest could go
        },
    ),
]

# -- GOAWAY --

REPLACED: Final = ("replacing the connection: the server sent GOAWAY NO_ERROR", "connected", "probe answered: ...")


def leaving(name: str, wire: Wire, **changes: Any) -> Fault:
    """Graceful: a new connection first, what is in flight ends on the old one, and nobody else notices (design, 4)."""
    columns = {
        "idle": Effect(history=REPLACED, sends=(NO_ERROR,)),
        # It leaves before it has answered anything: so there is no reason to believe it healthy.
        "connect": Effect(
            view=AWAY, history=("connected", "connection lost: the server sent GOAWAY NO_ERROR"), sends=(NO_ERROR,)
        ),
        "unary": Effect(call=GOES_ON, history=REPLACED),
        "stream": Effect(call=GOES_ON, history=REPLACED, answers=1),
        "probe": Effect(history=REPLACED, sends=("RST_STREAM CANCEL", NO_ERROR)),  # the replacement is probed instead
        "close": CLOSED,
    }
    return Fault(name=name, wire=wire, accepts=True, **{**columns, **changes})


SENT_AGAIN: Final = Effect(call=ANSWERED, answers=1, history=REPLACED, sends=(NO_ERROR,))  # on the new connection
BELOW: Final = Effect(history=REPLACED, sends=(NO_ERROR,))
CONTRADICTS: Final = Effect(call=UnavailableError, started=True, history=REPLACED, sends=(NO_ERROR,))


def last_before(stream: int) -> int:
    """The last stream id of a GOAWAY that the call is above."""
    return max(stream - 2, 0)


def with_error(name: str, wire: Wire, told: str, **changes: Any) -> Fault:
    """GOAWAY with an error code: the connection is lost."""
    columns = lost(f"the server sent GOAWAY {told}", NO_ERROR)
    columns["connect"] = evolve(columns["idle"], history=("connected", *columns["idle"].history))
    return Fault(name=name, wire=wire, **{**columns, **changes})


# The call is sent again on the next connection, and waits for it; all others would fail.
KEPT: Final = evolve(lost("the server sent GOAWAY INTERNAL_ERROR", NO_ERROR)["idle"], call=GOES_ON)

GOAWAYS: Final = [
    leaving("GOAWAY, graceful", lambda _: goaway(), interop="goaway"),
    leaving("GOAWAY, graceful, in two steps", lambda stream: goaway() + goaway(stream)),
    leaving(
        "GOAWAY below the call",
        lambda stream: goaway(last_before(stream)),
        answers=True,
        unary=SENT_AGAIN,
        stream=SENT_AGAIN,
        probe=BELOW,
    ),
    # One that has answered contradicts itself: nobody knows whether it has processed the request.
    leaving(
        "GOAWAY below a call that it answers",
        lambda stream: head(stream) + goaway(last_before(stream)),
        answers=True,
        idle=Senseless("no call is in flight that it could have begun to answer"),
        connect=NO_STREAM_YET,
        unary=CONTRADICTS,
        stream=evolve(CONTRADICTS, answers=1),
        probe=BELOW,
    ),
    with_error(
        "GOAWAY INTERNAL_ERROR",
        lambda _: goaway(code=ErrorCode.INTERNAL_ERROR, debug=b"oh no"),
        "INTERNAL_ERROR: oh no",
    ),
    with_error(
        "GOAWAY too_many_pings",
        lambda _: goaway(code=ErrorCode.ENHANCE_YOUR_CALM, debug=b"too_many_pings"),
        "ENHANCE_YOUR_CALM: too_many_pings",
    ),
    with_error(
        "GOAWAY INTERNAL_ERROR below the call",
        lambda stream: goaway(last_before(stream), ErrorCode.INTERNAL_ERROR),
        "INTERNAL_ERROR",
        answers=True,
        unary=KEPT,
        stream=KEPT,
    ),
]

# -- SETTINGS --


def setting(number: Setting, value: int) -> bytes:
    """SETTINGS of one value."""
    return settings({number: value})


def bad_settings(name: str, number: Setting, value: int, code: str) -> Fault:
    """A value that RFC 9113, 6.5.2, forbids."""
    return fatal(f"SETTINGS {name}", lambda _: setting(number, value), code)


STARVED: Final = Effect(call=LEFT, sends=("RST_STREAM CANCEL",), within=PATIENCE)
NO_ANSWER: Final = "probe failed: no answer within 5 s"

SETTINGS: Final = [
    harmless(
        "SETTINGS max streams 0",
        lambda _: setting(Setting.MAX_CONCURRENT_STREAMS, 0),
        # A probe that found no slot is no evidence (design, 4). But where there are none, nobody is served.
        connect=Effect(
            view=UNHEALTHY,
            history=("connected", "probe failed: the server has allowed no calls at all for 5 s"),
            within=PROBE_TIMEOUT,
        ),
        after=setting(Setting.MAX_CONCURRENT_STREAMS, UNLIMITED),
    ),
    harmless(
        "SETTINGS max streams 1",
        lambda _: setting(Setting.MAX_CONCURRENT_STREAMS, 1),
        callers=10,
        most=1,
        interop="max_streams",
    ),
    harmless(
        "SETTINGS window shrunk below zero",
        # 65,530 of 65,535 bytes have been sent: the probe has had 5 of the connection's. So the window is now 64,530
        # below zero, and what is added fills it up to zero.
        lambda stream: (
            setting(Setting.INITIAL_WINDOW_SIZE, 1_000) + window_update(0, 1_000_000) + window_update(stream, 64_530)
        ),
        request=100_000,
        after=setting(Setting.INITIAL_WINDOW_SIZE, 1_000_000),
    ),
    harmless(
        "SETTINGS frame size 2**24 - 1",
        lambda _: setting(Setting.MAX_FRAME_SIZE, 2**24 - 1),
        request=100_000,
        after=setting(Setting.INITIAL_WINDOW_SIZE, 1_000_000) + window_update(0, 1_000_000),
    ),
    harmless("SETTINGS header table 65,536", lambda _: setting(Setting.HEADER_TABLE_SIZE, 65_536)),
    harmless("SETTINGS of an unknown number", lambda _: settings({0xFE: 1})),
    harmless("SETTINGS of nothing, ten times", lambda _: 10 * settings()),
    bad_settings("push 1", Setting.ENABLE_PUSH, 1, "PROTOCOL_ERROR"),
    bad_settings("window 2**31", Setting.INITIAL_WINDOW_SIZE, 2**31, "FLOW_CONTROL_ERROR"),
    bad_settings("frame size 16,383", Setting.MAX_FRAME_SIZE, 16_383, "PROTOCOL_ERROR"),
    bad_settings("frame size 2**24", Setting.MAX_FRAME_SIZE, 2**24, "PROTOCOL_ERROR"),
    Fault(
        name="window exhausted",
        before=setting(Setting.INITIAL_WINDOW_SIZE, 0),
        after=setting(Setting.INITIAL_WINDOW_SIZE, 1_000_000),
        patience=PATIENCE,
        answers=True,
        # Silence, because the request has no way out: the caller decides how long to wait.
        idle=Effect(),
        connect=Effect(
            view=UNHEALTHY,
            history=("connected", NO_ANSWER),
            sends=("RST_STREAM CANCEL",),
            within=PROBE_TIMEOUT,
        ),
        unary=STARVED,
        stream=STARVED,
        probe=Effect(view=UNHEALTHY, history=(NO_ANSWER,), sends=("RST_STREAM CANCEL",), within=PROBE_TIMEOUT),
        close=evolve(CLOSED, sends=(NO_ERROR,), within=0.0),  # nothing of the request is in the way of the goodbye
    ),
]

CONNECTIONS: Final = [*PROTOCOLS, *GOAWAYS, *SETTINGS]
