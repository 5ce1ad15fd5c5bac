"""A client outside the cluster: the load of `exam.load`, handed in over TLS by somebody who logs in.

`python -m cluster.lab.submit --to HOST:PORT --user NAME --password WORD --mark LETTERS --count N --rate N --log FILE`. The
lines of the log are those of `exam.load`; the mails go to the four receivers of `exam.receivers`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import ssl
import zlib
from pathlib import Path

from exam.load import Client, Load, Maker, Refused
from exam.receivers import RECEIVERS

SESSIONS = 8
GIVE_UP_SECONDS = 180.0
"""After the last mail was first tried."""


class LoggedIn(Client):
    """Believes any certificate, as a test may."""

    def __init__(self, target: tuple[str, int], number: int, user: str, password: str) -> None:
        super().__init__([target], number)
        self._plain = base64.b64encode(f"\0{user}\0{password}".encode())
        self._trust = ssl.create_default_context()
        self._trust.check_hostname = False
        self._trust.verify_mode = ssl.CERT_NONE

    async def _connect(self) -> None:
        """A credential may be known to the cluster a little later than to us: no login is no refusal of the mail."""
        await super()._connect()
        assert self.writer is not None
        try:
            await self._say(b"STARTTLS")
            await self.writer.start_tls(self._trust)
            await self._say(b"EHLO load.test")
            await self._say(b"AUTH PLAIN " + self._plain)
        except (Refused, ssl.SSLError) as error:
            self.drop()
            raise ConnectionError(str(error)) from error

    async def _say(self, command: bytes) -> None:
        self._write(command + b"\r\n")
        self._check(await self._reply())


def main() -> None:
    """Read the command line and hand in."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    for name in ("to", "user", "password", "mark"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    host, _, port = options.to.rpartition(":")
    clients = [LoggedIn((host, int(port)), number, options.user, options.password) for number in range(SESSIONS)]
    maker = Maker(zlib.crc32(options.mark.encode()), {each.name: 1.0 for each in RECEIVERS}, options.mark)
    asyncio.run(Load(clients, options.log, GIVE_UP_SECONDS).run(maker, options.count, options.rate))


if __name__ == "__main__":
    main()
