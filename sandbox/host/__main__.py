"""Entry of ``python -m sandbox.host``.

Exit codes: 0 after SIGTERM or SIGINT, 1 when the app cannot be imported, 2 for a wrong command
line or setting, 3 when the app needs a binding that this host does not serve.

After an invocation that was over ``functionTimeout``, the real host replaces its worker process.
Host and worker are one process here, so it starts its own program anew under the same process id;
messages of the other running invocations return when their leases end.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from sandbox.host.dispatcher import leave, run_host
from sandbox.host.functions import UnsupportedBinding
from sandbox.host.logs import host_log
from sandbox.host.options import parse_options
from sandbox.host.settings import SettingsError
from sandbox.host.worker import AppFailed


async def main() -> None:
    """Run the dispatcher that the command line describes, and end the process."""
    start_folder = Path.cwd()
    exit_code = 0
    restart_port = None
    try:
        restart_port = await run_host(parse_options())
    except AppFailed as error:
        host_log.error("The app could not be loaded\n%s", error)
        exit_code = 1
    except UnsupportedBinding as error:
        host_log.error("%s", error)
        exit_code = 3
    except SettingsError as error:
        host_log.error("%s", error)
        exit_code = 2
    if restart_port is not None:
        host_log.error("The worker is replaced")
        os.chdir(start_folder)
        arguments = [*sys.argv[1:], "--port", str(restart_port)]
        program = [sys.executable, "-m", "sandbox.host", *arguments]
        os.execv(sys.executable, program)  # noqa: S606 - this same program, no shell
    # Here and not after the event loop: closing the loop waits for threads that may hang.
    leave(exit_code)


asyncio.run(main())
