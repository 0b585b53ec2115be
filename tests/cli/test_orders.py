"""``agentmesh killswitch`` and ``operator`` on a home whose daemon does not run, and before nodes that do not all obey."""

from __future__ import annotations

import contextlib
import io
import json
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentmesh.cli.main import main
from agentmesh.daemon.home import find_home
from agentmesh.errors import EXIT_AUTH, EXIT_NOT_FOUND, EXIT_USAGE
from agentmesh.identity.order import read_order
from agentmesh.wire.net_views import NetNodeView, NetView
from agentmesh.wire.order_views import OrdersView, OrderTaken, OrderView
from tests.support.records import key

Run = Callable[..., tuple[int, str, str]]
ALICE, BOB = key(41).did, key(42).did


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line; return exit code, stdout and stderr."""

    def command(*args: str) -> tuple[int, str, str]:
        code = main(list(args))
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def data(run: Run, *args: str) -> dict[str, Any]:
    code, out, err = run(*args, "--json")
    assert code == 0, err
    return json.loads(out)


def test_an_operators_key_is_made_once_kept_private_and_shown_for_other_machines(run: Run) -> None:
    code, _, err = run("operator", "show")
    assert code == EXIT_NOT_FOUND
    assert "agentmesh operator init" in err
    made = data(run, "operator", "init")
    assert made["created"]
    assert stat.S_IMODE(Path(made["path"]).stat().st_mode) == 0o600
    assert data(run, "operator", "init") == {**made, "created": False}
    assert run("operator", "show")[1].strip() == made["operator"]
    assert data(run, "operator")["operator"] == made["operator"]


def test_a_stop_works_without_a_daemon_and_holds_until_it_is_released(run: Run) -> None:
    assert not data(run, "killswitch", "status")["read_only"]
    code, out, err = run("killswitch", "on", "--reason", "runaway spending")
    assert code == 0, err
    assert "read-only" in out + err
    status = data(run, "killswitch", "status")
    assert status["read_only"]
    assert [one["reason"] for one in status["orders"]] == ["runaway spending"]
    assert status["operators"] == [data(run, "operator", "show")["operator"]]
    shown = "".join(run("killswitch", "status")[1:])
    assert "runaway spending" in shown
    assert run("killswitch", "off")[0] == 0
    assert not data(run, "killswitch")["read_only"]


def test_a_stop_may_end_by_itself_and_no_time_is_negative(run: Run) -> None:
    data(run, "killswitch", "on", "--for", "600", "--local")
    (one,) = data(run, "killswitch", "status")["orders"]
    assert one["until"] - one["iat"] in (600, 601)
    for flag in ("--for", "--wait"):
        assert run("killswitch", "on", flag, "-1")[0] == EXIT_USAGE


def test_without_the_operators_key_nobody_releases_a_stop(run: Run) -> None:
    data(run, "killswitch", "on")
    assert run("config", "set", "operators", data(run, "operator")["operator"])[0] == 0
    find_home("")[0].operator_key.unlink()
    code, _, err = run("killswitch", "off")
    assert code == EXIT_NOT_FOUND
    assert "operator.none" in err or "agentmesh operator init" in err
    data(run, "operator", "init")
    code, _, err = run("killswitch", "off")  # a new key is nobody that the stop was made by
    assert code == EXIT_AUTH, err
    assert data(run, "killswitch", "status")["read_only"]


def test_lists_are_published_from_toml_json_and_stdin_and_replace_those_before(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data(run, "operator", "init")
    file = tmp_path / "lists.toml"
    file.write_text(f'deny = ["{ALICE}"]\n')
    assert run("operator", "publish-list", str(file))[0] == 0

    def published() -> Any:
        (one,) = [one for one in data(run, "killswitch", "status")["orders"] if one["kind"] == "list"]
        return read_order(one["order"]).body

    assert published().deny == (ALICE,)
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps({"allow": [BOB]}).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert run("operator", "publish-list", "-")[0] == 0
    assert (published().allow, published().deny) == ((BOB,), ())


@pytest.mark.parametrize("text", ['denied = ["x"]', "deny = 3", "\x00", "{", None])
def test_what_is_no_list_is_refused_with_the_reason_and_publishes_nothing(
    run: Run, tmp_path: Path, text: str | None
) -> None:
    data(run, "operator", "init")
    file = tmp_path / "lists.toml"
    if text is not None:
        file.write_text(text)
    code, _, err = run("operator", "publish-list", str(file))
    assert code == EXIT_USAGE
    assert "lists.toml" in err
    assert data(run, "killswitch", "status")["orders"] == []


def test_keys_are_revoked_one_after_the_other_and_taken_back(run: Run) -> None:
    data(run, "operator", "init")
    data(run, "operator", "revoke", ALICE, "--reason", "laptop stolen")
    code, out, _ = run("operator", "revoke", BOB, BOB)
    assert code == 0
    assert {ALICE, BOB} <= set(out.split())
    assert sorted(data(run, "killswitch", "status")["revoked"]) == sorted((ALICE, BOB))
    data(run, "operator", "restore", ALICE)
    assert data(run, "killswitch", "status")["revoked"] == [BOB]
    assert run("operator", "revoke", "did:key:nobody")[0] != 0


class Desk:
    """A running node whose mesh answers as the test says."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.surveys = 0
        self.obeying = 1
        self.operator = key(43).did

    def orders(self) -> OrdersView:
        stops = [self._order(raw) for raw in self.taken]
        return OrdersView(
            node_id=key(44).did,
            operators=[self.operator],
            read_only=bool(stops),
            stops=[s.jti for s in stops],
            orders=stops,
        )

    def _order(self, raw: str) -> OrderView:
        one = read_order(raw)
        return OrderView(
            operator=one.operator, kind="switch", event="stop", seq=one.seq, iat=one.iat, jti=one.jti, order=raw
        )

    def take_order(self, order: str) -> OrderTaken:
        self.taken.append(order)
        return OrderTaken(order=self._order(order))

    def net(self) -> NetView:
        self.surveys += 1
        jti = [self._order(self.taken[-1]).jti]
        obeying = self.obeying if self.surveys < 3 else 2
        nodes = [NetNodeView(node_id=f"n{i}", node_name=f"n{i}", stops=jti if i < obeying else []) for i in range(3)]
        nodes.append(NetNodeView(node_id="n3", node_name="gone", answered=False))
        return NetView(nodes=3, edges=0, map=nodes)


def test_a_stop_waits_for_the_nodes_and_names_those_that_obey_others_or_do_not_answer(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    data(run, "operator", "init")
    desk = Desk()

    @contextlib.contextmanager
    def at_desk(_out: object) -> Iterator[Desk]:
        yield desk

    monkeypatch.setattr("agentmesh.cli.orders.desk", at_desk)
    monkeypatch.setattr("agentmesh.cli.commands.killswitch._POLL_S", 0.0)
    told = data(run, "killswitch", "on", "--wait", "0.05")
    assert desk.surveys >= 2
    assert (told["asked"], told["confirmed"], told["others"], told["silent"]) == (4, 2, ["n2"], ["n3"])
    _, out, err = run("killswitch", "on", "--wait", "0")
    assert "2 of 4" in out + err
    assert "it may obey other operators" in out + err
    assert "does not answer" in out + err
