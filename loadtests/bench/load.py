"""The load generator, wrk, and its counts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.cpu import cpu_ns
from loadtests.bench.servers import BenchError, Server

CONNECTIONS = 32
#: A server that had less of its processor waited, for the generator or for other work.
#: It then does less at each wake-up, and a request looks more expensive than it is.
KEPT_BUSY = 0.85

# The requests are put together before the clock runs: the generator's cost per request
# is next to nothing, and the same for every server.
_SCRIPT = """\
local requests, next = {}, 0
function init(args)
  local headers = { %(headers)s }
  for line in io.lines(%(credentials)s) do
    headers["Authorization"] = line
    requests[#requests + 1] = wrk.format("GET", %(target)s, headers)
  end
end
function request()
  next = next + 1
  if next > #requests then next = 1 end
  return requests[next]
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("RESULT %%d %%d %%d %%d %%d %%d\\n",
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """The counts of wrk in one run; durations in microseconds.

    Attributes:
        requests: answers received.
        duration_us: how long it asked.
        refused: answers of 400 and above.
        broken: connections and reads that failed.
        p50_us: median latency.
        p99_us: 99th percentile of the latency.
    """

    requests: int
    duration_us: int
    refused: int
    broken: int
    p50_us: int
    p99_us: int

    def wrong(self, *, wants_refusals: bool) -> int:
        """Return how many answers were wrong."""
        wrong = self.requests - self.refused if wants_refusals else self.refused
        return wrong + self.broken


@dataclass(frozen=True, slots=True)
class Sample:
    """One measure in one round.

    Attributes:
        cpu_us: processor time of the server's process trees per request, microseconds.
        rate: requests per second.
        p50_us: median latency, microseconds.
        p99_us: 99th percentile of the latency, microseconds.
        wrong: answers other than the expected one.
        busy: the share of its processor the server had, 0 to 1.
    """

    cpu_us: float
    rate: float
    p50_us: float
    p99_us: float
    wrong: int
    busy: float


def write_script(
    path: Path, target: str, headers: Mapping[str, str], credentials: Sequence[str]
) -> Path:
    """Write a wrk script that shows each credential in turn; return its path."""
    listed = path.with_suffix(".credentials")
    listed.write_text("".join(f"{credential}\n" for credential in credentials))
    texts = (f"[{json.dumps(k)}]={json.dumps(v)}" for k, v in headers.items())
    script = _SCRIPT % {
        "headers": ", ".join(texts),
        "credentials": json.dumps(str(listed)),
        "target": json.dumps(target),
    }
    path.write_text(script)
    return path


def parse_result(output: str) -> Counted:
    """Read the line our script makes wrk print.

    Raises:
        BenchError: when there is none, or it counts nothing.
    """
    for line in output.splitlines():
        if line.startswith("RESULT "):
            counted = Counted(*map(int, line.split()[1:]))
            if counted.requests and counted.duration_us:
                return counted
            raise BenchError("wrk got no answer at all")
    raise BenchError(f"wrk said nothing of use:\n{output[-1_000:]}")


def ask(
    server: Server,
    script: Path,
    seconds: int,
    core: int,
    *,
    wants_refusals: bool,
) -> Sample:
    """Run wrk for that long; return the cost at the server.

    Args:
        server: the server that gets the requests.
        script: of wrk, with the requests.
        seconds: how long.
        core: wrk's own processor.
        wants_refusals: whether every answer has to be a refusal.

    Raises:
        BenchError: when wrk fails.
    """
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{CONNECTIONS}"]
    command += [f"-d{seconds}s", "--timeout", "5s", "-s", str(script)]
    command += [f"http://127.0.0.1:{server.port}"]
    before = sum(map(cpu_ns, server.pids))
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 30, check=False
    )
    used_ns = sum(map(cpu_ns, server.pids)) - before
    counted = parse_result(done.stdout + done.stderr)
    return Sample(
        cpu_us=used_ns / counted.requests / 1_000,
        rate=counted.requests / counted.duration_us * 1_000_000,
        p50_us=counted.p50_us,
        p99_us=counted.p99_us,
        wrong=counted.wrong(wants_refusals=wants_refusals),
        busy=used_ns / (counted.duration_us * 1_000),
    )
