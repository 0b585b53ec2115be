"""A query taken apart into needs: "translate the contract and book a flight to Rome, then remind me" are three. Pure.

A text is cut only where both sides stand on their own: each begins with something to do and says what with. So "search and
replace", "terms and conditions" and a story of two sentences stay whole. Whoever cuts too much finds agents for half a need;
whoever cuts too little still finds the agents that cover most of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from agentmesh.core.search.common import weight_of
from agentmesh.core.search.text import clean, folded, stem, tokens

NEEDS_MAX = 8
#: What may part two needs in English, German, Spanish and French; the longer first.
_BORDER = re.compile(
    r"\s*(?:[;\n]+|\.\s+|[,.;]?\s+(?:and\s+then|and\s+also|and\s+afterwards|after\s+that|as\s+well\s+as|then|also|plus|and|und\s+dann|und|y\s+luego|"
    r"y|et\s+ensuite|et|puis|dann|luego)\b|,)\s*",
    re.IGNORECASE,
)
#: What may stand before the deed.
_LEAD = re.compile(
    r"^(?:(?:please|pls|kindly|also|then|next|finally|first|secondly|and|i\s+(?:also\s+)?(?:need|want|would\s+like|have)\s+(?:you\s+)?(?:to|someone\s+to|help\s+to)?|i'd\s+like\s+(?:you\s+)?to|"
    r"can\s+(?:you|someone|anyone|it)|could\s+you|help\s+me(?:\s+to)?|someone\s+(?:to|who\s+can)|an?\s+agent\s+(?:that|which|who|to)(?:\s+can)?|let's|bitte|por\s+favor|s'il\s+vous\s+plait)\s+)+",
    re.IGNORECASE,
)
_DEEDS = """
add analyse analyze answer apply approve archive arrange ask assess audit automate backup balance bill book boil build
buy calculate call cancel categorise categorize change chart check choose clean cite classify code collect combine
compare compile complete compose compress compute configure convert cook copy correct cost count create crop cut debug
decide declare decrypt delete deliver deploy describe design detect develop diagnose digitise download draft draw edit
email encrypt estimate evaluate explain export extract fact-check fetch file fill filter find fix flag forecast format
fill generate get give grade group hire identify import improve insert inspect install interpret invoice invest label
learn list localise locate log look mail make manage map mark measure merge message migrate mock model monitor move
negotiate notify optimise optimize order organise organize pay pick plan play plot post practise practice predict
prepare price print prioritise proofread propose protect prove provision publish pull purchase push put query quote
rank rate read rebook recommend reconcile record redact refactor refund register remind remove rename render renew
rent repair rephrase replace reply report request rescale research reserve resize resolve restart restore restyle
retrieve return review rewrite rotate run save scan schedule scrape screen search seek segment sell send separate set
ship shorten show sign simplify simulate sketch solve sort split spot start stop store submit subscribe suggest
summarise summarize switch tag teach tell test track train transcribe transfer transform translate trim troubleshoot
tune turn tweet update upgrade upload validate vectorise verify visualise visualize warn watch write
ubersetze ubersetzen prufe prufen buche buchen finde finden suche suchen schreibe schreiben erstelle erstellen
erinnere berechne berechnen vergleiche vergleichen plane planen
traduce traducir reserva reservar busca buscar revisa revisar escribe escribir calcula calcular compara comparar
planifica recuerdame
traduis traduire reserve reserver cherche chercher verifie verifier ecris ecrire calcule calculer compare comparer
planifie rappelle
"""
_CHINESE_BORDER = re.compile(
    r"[，,；;。\n]*\s*(?:然后再|然后|接着|随后|之后再|再帮我|并且|同时|另外|还要|还需要|以及|顺便|最后|并|再)|[，,；;。\n]+\s*|和(?=.{2})"
)
_CHINESE_LEAD = re.compile(
    r"^(?:请|麻烦|帮我|帮忙|我想要|我想|我要|我需要|需要|希望|能不能|可以|再|并|然后|一下|给我|把)+"
)
_CHINESE_DEEDS = (
    "翻译 预订 预定 订 提醒 查 查询 查找 找 搜索 写 起草 撰写 审 审查 审核 检查 修改 改写 润色 总结 摘要 "
    "概括 分析 计算 算 比较 对比 生成 制作 做 画 设计 安排 规划 计划 制定 发送 发 通知 推荐 整理 提取 "
    "转换 转成 识别 监控 部署 测试 修复 优化 购买 买 卖 支付 缴 报 申请 填写 填 注册 取消 退 续 录 转写 "
    "校对 解释 讲解 教 辅导 评估 预测 备份 导出 导入 上传 下载 发布 回复 清洗 去重 合并 拆分 剪辑 配音 "
    "核对 对账 开 约 寄 打包 压缩 加密 脱敏 统计 绘制"
)
#: What follows "把" or stands before a deed, in signs: 把合同翻译成英文 begins its deed at the third.
_DEED_WITHIN = 8


def needs_of(query: str, most: int = NEEDS_MAX) -> list[str]:
    """Return the needs of a query in their order; one that cannot be cut is returned whole, an empty one not at all.

    Args:
        query: What somebody typed.
        most: Needs returned; what is beyond stays with the last.
    """
    text = clean(query).strip()
    if not text:
        return []
    found = [part for whole in _cut(text, _BORDER, _stands) for part in _cut(whole, _CHINESE_BORDER, _stands_chinese)]
    kept, rest = found[: most - 1], found[most - 1 :]
    return [*kept, ", ".join(rest)] if rest else kept


def _cut(text: str, border: re.Pattern[str], stands: Callable[[str], bool]) -> list[str]:
    """Cut at those borders where what is before and what comes after each stand on their own."""
    found: list[str] = []
    begin = at = 0
    while (cut := border.search(text, at)) is not None:
        at = max(cut.end(), at + 1)
        if cut.end() > cut.start() and stands(text[begin : cut.start()]) and stands(text[cut.end() :]):
            found.append(text[begin : cut.start()].strip())
            begin = cut.end()
    last = text[begin:].strip(" \t\r\n.;,。；，")
    return [*found, last] if last or not found else found


def _stands(part: str) -> bool:
    """Say whether a part is a need of its own: something to do, and what with."""
    part = _LEAD.sub("", part.strip())
    words = [one for one in tokens(part) if one.kind != "end"]
    if len(words) < 2 or words[0].kind != "word" or not (words[0].text in _deeds() or words[0].plain in _deeds()):
        return False
    return any(one.kind == "run" or weight_of(one.text) > 0 for one in words[1:]) or words[1].plain in (
        "me",
        "us",
        "them",
    )


def _stands_chinese(part: str) -> bool:
    """Say whether a part in signs is a need of its own: a deed near its beginning, and at least two signs more."""
    part = _CHINESE_LEAD.sub("", part.strip())
    near = part[:_DEED_WITHIN]
    for deed in _chinese_deeds():
        at = near.find(deed)
        if at == 0 or (at > 0 and len(deed) > 1):
            return len(part) >= len(deed) + 2 or (deed == "提醒" and len(part) >= 3)
    return False


@cache
def _deeds() -> frozenset[str]:
    words = _DEEDS.split()
    return frozenset(stem(folded(word)) for word in words) | frozenset(words)


@cache
def _chinese_deeds() -> tuple[str, ...]:
    return tuple(sorted(set(_CHINESE_DEEDS.split()), key=lambda one: (-len(one), one)))
