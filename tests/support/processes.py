"""Real programs in tests; the code is shared with the benchmarks."""

from loadtests.support.processes import PATIENCE as PATIENCE
from loadtests.support.processes import NotInTimeError as NotInTimeError
from loadtests.support.processes import Process as Process
from loadtests.support.processes import ProcessFactory as ProcessFactory
from loadtests.support.processes import descendants as descendants
from loadtests.support.processes import eventually as eventually
from loadtests.support.processes import free_port as free_port
from loadtests.support.processes import is_alive as is_alive
from loadtests.support.processes import is_listening as is_listening
from loadtests.support.processes import wait_until as wait_until
