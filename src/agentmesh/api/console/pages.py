"""The few pages that the daemon writes itself: plain HTML in both languages, for when the console cannot speak for itself."""

from __future__ import annotations

import html

#: What every answer of the console's door carries. Pages load from this origin only, and nobody may frame them.
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
        b"worker-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"x-frame-options", b"DENY"),
)

#: Takes the page secret out of the page into the storage of this origin, and goes on to the console; the fragment that
#: names a page of it comes along. A file of its own, since the policy allows no script inside a page.
ENTER_JS = b"""'use strict'
try {
  localStorage.setItem('agentmesh.page', document.querySelector('meta[name="agentmesh-page"]').content)
  location.replace('/' + (location.hash.startsWith('#/') ? location.hash : ''))
} catch {
  document.getElementById('storage').hidden = false
}
"""

#: How these pages look; a file of its own for the same reason.
PAGE_CSS = b"""body { font: 16px/1.6 system-ui, 'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif; margin: 0; }
main { max-width: 40rem; margin: 12vh auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; line-height: 1.3; }
h2 { font-size: 1.25rem; line-height: 1.3; margin-top: 2.5rem; }
pre { font: 0.95rem/1.5 ui-monospace, monospace; padding: 0.75rem 1rem; border: 1px solid; border-radius: 6px; overflow-x: auto; }
"""


def enter_page(page: str) -> bytes:
    """Return the page after a login: it hands on the page secret and goes to the console."""
    return _page(
        "AgentMesh",
        '<p id="storage" hidden>This browser keeps nothing for this page: allow local storage for it, then run '
        '<code>agentmesh console</code> again.<br><span lang="zh-CN">浏览器不允许本页面保存数据：请允许本地存储，'
        "然后重新运行 <code>agentmesh console</code>。</span></p>"
        "<noscript><p>The console needs JavaScript. On the command line: <code>agentmesh status</code><br>"
        '<span lang="zh-CN">控制台需要 JavaScript。命令行：<code>agentmesh status</code></span></p></noscript>'
        '<script src="/console/enter.js"></script>',
        head=f'<meta name="agentmesh-page" content="{html.escape(page)}">',
    )


def link_page() -> bytes:
    """Return the page for a link that opens nothing (any more)."""
    return _said(
        "This link does not open the console",
        "A link works once, and for one minute. This one was used, is too old, or is from another daemon. "
        "Make a new one on the machine that runs AgentMesh:",
        "此链接无法打开控制台",
        "链接只能使用一次，有效期一分钟。它已被使用、已过期，或属于另一个守护进程。请在运行 AgentMesh 的机器上重新生成：",
        "agentmesh console",
    )


def login_page() -> bytes:
    """Return the page for somebody who is not logged in."""
    return _said(
        "You are not logged in",
        "Nobody is logged in to the AgentMesh console in this browser. Run this on the machine that runs AgentMesh; "
        "it opens the console logged in:",
        "尚未登录",
        "此浏览器尚未登录 AgentMesh 控制台。请在运行 AgentMesh 的机器上运行以下命令，它会打开已登录的控制台：",
        "agentmesh console",
    )


def unbuilt_page() -> bytes:
    """Return the page for an installation without the console's files."""
    return _said(
        "The console is not in this installation",
        "Its files are missing. Released packages bring them; in a checkout of the source this makes them:",
        "此安装不包含控制台",
        "缺少控制台文件。发布的安装包会自带；在源码目录中运行以下命令即可生成：",
        "cd console && npm ci && npm run build",
    )


def missing_page() -> bytes:
    """Return the page for an address at which nothing is."""
    return _said(
        "There is nothing here",
        "The console begins at /. To open it logged in:",
        "此处没有内容",
        "控制台的地址是 /。打开已登录的控制台：",
        "agentmesh console",
    )


def trouble_page(text: str) -> bytes:
    """Return the page for a login that failed on this side, with what the daemon says."""
    return _said("The login failed", text, "登录失败", text, "agentmesh doctor")


def _said(title: str, text: str, title_zh: str, text_zh: str, command: str) -> bytes:
    body = (
        f"<h1>{html.escape(title)}</h1><p>{html.escape(text)}</p><pre>{html.escape(command)}</pre>"
        f'<div lang="zh-CN"><h2>{html.escape(title_zh)}</h2><p>{html.escape(text_zh)}</p>'
        f"<pre>{html.escape(command)}</pre></div>"
    )
    return _page(title, body)


def _page(title: str, body: str, *, head: str = "") -> bytes:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="/icon.svg"><link rel="stylesheet" href="/console/page.css">'
        f"{head}<title>{html.escape(title)}</title></head>"
        f"<body><main>{body}</main></body></html>\n"
    ).encode()
