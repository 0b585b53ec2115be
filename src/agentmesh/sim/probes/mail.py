"""Mail: agents of random nodes write to each other; does everything balance, per message, whatever goes wrong?"""

from __future__ import annotations

from agentmesh.core.courier.config import CourierConfig
from agentmesh.sim.post import Mail, Post
from agentmesh.sim.probes.base import Figures, Probe, spread_ms

#: Other nodes that one node writes to, and conversations with each.
_PEERS = 4
_CONVERSATIONS = 3
#: Messages handed over at once.
_BATCH = 5
#: Of all messages: those sent at most once, and those with a tenth of the time.
_ONCE = 0.1
_HASTY = 0.1
_CHECK_S = 1.0


class MailProbe(Probe):
    """Let nodes write to each other, ``count`` times ``interval_s`` apart, and compare all outboxes and inboxes at the end.

    A message is given up after ``deadline_s``, one in ten after a tenth of that. A node that is down keeps its outbox.
    """

    def open(self) -> None:
        """Plan the messages."""
        self.post = Post(self.world, CourierConfig())
        self._wrong: dict[str, int] = {}
        self._judged_s = -1.0
        rng = self.world.rng
        nodes = range(len(self.world.nodes))
        self._peers = {
            index: [peer for peer in rng.sample(nodes, min(len(nodes), _PEERS + 1)) if peer != index] for index in nodes
        }
        for number in range(self.measure.count):
            self.world.call(self.at(number * self.measure.interval_s), self._write)
        self.world.every(_CHECK_S, self._check)

    def _write(self) -> None:
        world, post, rng = self.world, self.post, self.world.rng
        senders = [node for node in world.honest() if post.desks[node.index].life == node.life]
        if not senders:
            return
        sender = rng.choice(senders).index
        recipient, conversation = rng.choice(self._peers[sender]), f"c{rng.randrange(_CONVERSATIONS)}"
        mails: list[Mail] = []
        for _ in range(_BATCH):
            mail = Mail(len(post.mails) + len(mails), sender, recipient, conversation, rng.randrange(4))
            mail.acked = rng.random() >= _ONCE
            mail.sent_s = world.now_s
            mail.expires_s = world.now_s + self.measure.deadline_s * (0.1 if rng.random() < _HASTY else 1.0)
            mails.append(mail)
        post.send(mails)

    def _check(self) -> None:
        try:
            self.post.assert_invariants()
        except AssertionError as error:
            self.world.violate(f"invariant of a courier: {error}")

    def _judge(self) -> None:
        """Compare outboxes with inboxes, per message."""
        if self._judged_s == self.world.now_s:
            return
        self._judged_s = self.world.now_s
        self._wrong = {"lost": 0, "unended": 0, "disordered": 0, "foreign": 0}
        post, now_s = self.post, self.world.now_s
        for mail in post.mails:
            desk = post.desks[mail.sender]
            kept = mail.number in post.desks[mail.recipient].inbox
            if mail.ended == "delivered" and not kept:
                self._found("lost", mail, "acknowledged and not in the inbox")
            if not mail.ended and desk.node.state == 0 and desk.life == desk.node.life and mail.expires_s + 1.0 < now_s:
                self._found("unended", mail, "its time is over and its sender was told nothing")
            if (not mail.ended) != (mail.number in desk.outbox):
                self._found("unended", mail, f"ended {mail.ended!r} and the outbox says otherwise")
        for desk in post.desks:
            last: dict[tuple[int, str], int] = {}
            for number in desk.inbox:
                mail = post.mails[number]
                if mail.recipient != desk.node.index:
                    self._found("foreign", mail, f"in the inbox of {desk.node.index}")
                key = mail.sender, mail.conversation
                if number < last.get(key, -1):
                    self._found("disordered", mail, f"kept after {last[key]}")
                last[key] = number

    def _found(self, what: str, mail: Mail, text: str) -> None:
        self._wrong[what] += 1
        self.world.note(f"message {mail.number} from {mail.sender} to {mail.recipient}, {mail.conversation}: {text}")

    def figures(self) -> Figures:
        """Return how many messages ended how, how long the delivered ones took to be kept, and what it cost."""
        self._judge()
        post = self.post
        ends: dict[str, int] = {"delivered": 0, "expired": 0, "returned": 0, "": 0}
        took_s: list[float] = []
        for mail in post.mails:
            ends[mail.ended] += 1
            kept_s = post.desks[mail.recipient].inbox.get(mail.number)
            if kept_s is not None:
                took_s.append(kept_s - mail.sent_s)
        sent = post.letters + sum(desk.courier.sent for desk in post.desks)
        again = post.repeats + sum(desk.courier.repeats for desk in post.desks)
        return {
            "mail_sent": len(post.mails),
            "mail_delivered": ends["delivered"],
            "mail_expired": ends["expired"],
            "mail_returned": ends["returned"],
            "mail_waiting": ends[""],
            "mail_arrived": len(took_s),
            "mail_arrived_ratio": round(len(took_s) / max(1, len(post.mails)), 5),
            **spread_ms("mail", took_s),
            "mail_lost": self._wrong["lost"],
            "mail_unended": self._wrong["unended"],
            "mail_disordered": self._wrong["disordered"],
            "mail_foreign": self._wrong["foreign"],
            "mail_repeated_ratio": round(again / max(1, sent), 4),
            "mail_known_again": post.repeated,
        }

    def misses(self) -> int:
        """Return the messages about which the books disagree."""
        self._judge()
        return sum(self._wrong.values())
