"""``agentmesh doctor``: check this installation, each line with the next command; ``--json`` is fit for a bug report."""

from __future__ import annotations

from typing import Any

from agentmesh.cli import i18n
from agentmesh.cli.output import Output
from agentmesh.cli.verb import single
from agentmesh.errors import EXIT_BUG


def doctor(out: Output) -> int:
    """Check this installation.

    \b
    agentmesh doctor
    agentmesh doctor --json          redacted, for bug reports

    Ends with 1 when something is broken; warnings do not count.
    """
    from agentmesh.cli.checks import all_checks, redact
    from agentmesh.cli.commands.version import versions

    findings = all_checks(out)
    failed = any(finding.mark == "fail" for finding in findings)
    if out.json:
        checks = [
            {"check": f.name, "state": f.mark, "text": redact(f.text), "next": redact(f.next) or None} for f in findings
        ]
        out.data({"ok": not failed, "versions": versions(), "checks": checks})
        return EXIT_BUG if failed else 0
    for finding in findings:
        out.check(finding.mark, finding.name, finding.text)
        if finding.next:
            out.line((f"    {i18n.t('next:')} ", "dim"), finding.next)
    return EXIT_BUG if failed else 0


def build() -> Any:
    """Return the command."""
    return single(doctor)
