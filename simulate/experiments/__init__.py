"""Theory and simulation held together: hypothesis checks and the studies behind the project's claims."""

import sys

from theory.setting import interrupt

if sys.argv[:1] == ["-m"]:  # a study run as ``python -m``, its own imports still to come
    interrupt.install("simulate.experiments")
