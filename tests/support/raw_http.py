"""HTTP as bytes in tests; the code is shared with the benchmarks."""

from loadtests.support.raw_http import HeaderLines as HeaderLines
from loadtests.support.raw_http import RawAnswer as RawAnswer
from loadtests.support.raw_http import bearer as bearer
from loadtests.support.raw_http import post_json as post_json
from loadtests.support.raw_http import read_answer as read_answer
from loadtests.support.raw_http import send as send
