"""
Look at this machine and at a graph that runs, and say what would go wrong in a drive, before it
does. Moves nothing, arms nothing; takes some ten seconds.

  janusvln doctor                  beside 'janusvln up robot', with camera and base running
  janusvln doctor --all            also what is well, and what does not apply
  janusvln doctor --json           ok, and checks: name, status, detail, remedy of each

Each check passes, warns (it will drive, worse), fails (it will not) or is skipped (it does not
apply here). Exit code 0: nothing fails; 1: something does.
"""

import argparse
import os
from typing import Any

from janusvln_ros.cli.beside import usable
from janusvln_ros.cli.options import JSON, RUNNING, option
from janusvln_ros.cli.output import answer, say
from janusvln_ros.errors import InputError
from janusvln_ros.graph.checks import Finding
from janusvln_ros.graph.installed import require_ros
from janusvln_ros.graph.machine import examine_machine, look

OPTIONS = (
    option(
        "--all", action="store_true", help="list every check, not only those that did not pass"
    ),
    *RUNNING,
    JSON,
)


def run(args: argparse.Namespace) -> int:
    """Look and print."""
    usable(args.domain)
    checks = [finding._asdict() for finding in examined(args.domain, args.namespace)]
    ok = all(check["status"] != "fail" for check in checks)
    answer(args.json, {"ok": ok, "checks": checks}, lambda told: page(told, args.all))
    return 0 if ok else 1


def examined(domain: int | None, namespace: str | None) -> list[Finding]:
    """The findings of this machine, and of the graph where there is ROS."""
    machine = look(dict(os.environ) | ({} if domain is None else {"ROS_DOMAIN_ID": str(domain)}))
    try:
        require_ros()
    except InputError:  # which the check of ROS 2 says
        return examine_machine(machine())
    from janusvln_ros.graph.doctor import examination

    say("listening; nothing is moved")
    return examination(machine, domain, namespace)


def page(told: dict[str, Any], everything: bool) -> str:
    """The findings for people."""
    checks = told["checks"]
    lines = []
    for check in checks:
        if everything or check["status"] in ("warn", "fail"):
            lines.append(f"{check['status']:5} {check['name']:20} {check['detail']}")
            if check["remedy"] and check["status"] != "pass":
                lines.append(f"{'':26} -> {check['remedy']}")
    counts = {
        word: sum(check["status"] == status for check in checks)
        for word, status in (("passed", "pass"), ("warn", "warn"), ("fail", "fail"))
    }
    skipped = [check["name"] for check in checks if check["status"] == "skip"]
    counted = ", ".join(f"{count} {word}" for word, count in counts.items())
    also = f"; not looked at: {', '.join(skipped)}" if skipped else ""
    return "\n".join([*lines, f"{counted}{also}"])
