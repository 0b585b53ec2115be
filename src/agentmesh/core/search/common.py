"""Words that say little of a need or an agent: some nothing, some something, none of them much.

Written for this project, from what people type when they ask for something and what every agent says of itself. A word that
is not here counts by how rare it is among the agents.
"""

from __future__ import annotations

from functools import cache

from agentmesh.core.search.text import folded, stem

#: Of no weight at all: grammar, politeness, and praise, which costs its author nothing.
_NOTHING = """
a about above after again all almost along already also although always am an and another any anybody anyone anything
are around as at away back be became because become been before began behind being below between both but by can
cannot cant could couldnt did didnt do does doesnt doing done dont down during each either else enough even ever every
everybody everyone everything for from further get gets getting give given gives giving go goes going gone got had
hardly has hasnt have havent having he hello hence her here hers herself hey hi him himself his how however i id if
ill im in indeed instead into is isnt it its itself ive just keep keeps least less let lets like likely little lot
lots made make makes making many may maybe me might mine more moreover most mostly much must my myself near nearly
neither never nevertheless no nobody none nor not nothing now of off often oh ok okay on once one only onto or other
others otherwise ought our ours ourselves out over own per perhaps please pls put quite rather really same seem seems
several shall she should shouldnt since so some somebody somehow someone something sometimes somewhere soon still such
take takes taking than thank thanks that thats the their theirs them themselves then there therefore these they thing
things think this those though through throughout thus to together too toward towards tried tries try trying under
unless until up upon us use used useful uses using usually various very via want wanted wants was wasnt way we well
were werent what whatever when where whether which while who whole whom whose why will wish with within without wont
would wouldnt yes yet you youd youll your youre yours yourself yourselves
agent agents ai assistant assistants bot bots llm
amazing awesome best better brilliant clever easily easy effortless effortlessly excellent expert expertly extremely
fantastic fast fastest finest flawless good great greatest high ideal incredible leading magic magical nice number
perfect perfectly powerful premier premium quick quickly reliable revolutionary robust seamless seamlessly simple
simply smart smarter state superb superior top trusted ultimate unbeatable unique unmatched unrivalled world
"""
_NOTHING_FOREIGN = """
der die das den dem des ein eine einen einem einer eines und oder aber nicht kein keine mit von vom zum zur fur auf
aus bei nach uber unter ich du er sie es wir ihr mir mich dir dich uns euch mein meine meinen meiner dein sein seine
ihre ist sind war waren wird werden kann konnen muss mussen soll sollte mochte bitte wie was wer wo wann warum im am
zu als auch noch nur so dass wenn
el la los las un una unos unas y o u pero no con de del al a en por para que quien como donde cuando yo tu mi mis su
sus me te se nos lo le les es son era fue ser estar esta este esto esos necesito quiero puedo puede favor hay muy mas
le la les un une des du de et ou mais ne pas avec sans pour par sur sous dans en au aux je tu il elle nous vous ils
elles mon ma mes ton ta tes son sa ses ce cet cette ces qui que quoi dont est sont etait etre avoir ai as avons avez
ont veux besoin peux peut svp
il lo gli uno della dello degli delle nel nella con per che chi sono non mi ti si ci vi ho hai ha abbiamo
o os um uma uns umas e do da dos das no na nos nas com por para que eu voce ele ela meu minha seu sua preciso quero
het een van en met voor niet ik jij wij mijn
и в на не с по для что как это я мы вы он она они мне нам мой моя мои из к у о от до за бы ли же
"""
#: Of some weight: they fit many needs, so they decide only between answers that are equal otherwise.
_LITTLE = """
able access action actions add advice allow allows answer answers apply appropriate area areas ask asks assist
assistance available base based basic behind big bit bring build builds call calls capability capabilities capable
case cases change changes check checks clear come comes common complete comprehensive contact content create creates
creating current custom customer daily data day days deal detail detailed details different does easier end ensure
ensures every exact existing expect explain explains feel figure file files final find finding finds fit fix focus
follow following form full general generate generates generating handle handles happen happens help helper helpful
helps idea important include includes including information input issue issues item items job kind know knows large
last late level list listed lists long look looking looks main manage manages matter mean means meet might minute
minutes month months move multiple name need needed needs new next note number offer offers old open option options
order output part parts people perform performs person piece place plan plans point possible prepare prepares present
problem problems process processes produce produces professional proper properly provide provides question questions
read reads ready real reason receive related relevant request requests require required result results return returns
right run running runs say says see seen select send service services set sets share short show shows single size
small solution solutions sort special specific start step steps stop stuff suggest suggests supply support supported
supports sure system systems task tasks tell text time times today tomorrow tool tools total turn turns type types
understand update updates upload user users value version view watch week weeks word words work working works write
writing wrong year years
"""
#: Chinese strings that are taken out before a run is read: grammar, politeness, asking.
_NOTHING_CHINESE = (
    "的 了 吗 呢 吧 啊 呀 嘛 哦 我 你 您 他 她 它 我们 你们 他们 咱们 大家 自己 这 那 这个 那个 这些 那些 "
    "这里 那里 这样 那样 怎么 怎样 如何 什么 为什么 哪个 哪些 哪里 谁 多少 几 是 不是 是不是 有 没有 "
    "有没有 在 和 与 及 以及 或 或者 还是 而 但 但是 因为 所以 如果 就 都 也 还 又 再 很 太 更 最 非常 "
    "比较 把 被 给 让 请 帮 帮我 帮忙 帮助 一下 一个 一些 一种 一份 一点 想 想要 我想 要 我要 需要 希望 "
    "可以 能 能够 能不能 可不可以 会 应该 必须 得 地 着 过 到 从 对 对于 关于 向 往 为 为了 以 用 使用 于 "
    "由 等 等等 之 其 其中 各 各种 每 某 该 此 本 谢谢 麻烦 劳驾 请问 求 求助 谁能 有人 智能体 助手 "
    "机器人 代理 最好 最强 超级 顶级 专业 强大 完美 优秀 一流 轻松 快速 上 下 里 中 内 外 时 时候 后 前 "
    "之后 之前 然后 接着 并 并且 同时 将 已 已经 正在 不 不要 别 没 去 来 做 弄 搞 看 看看 说 问 问题"
)


@cache
def weight_of(word: str) -> float:
    """Return how much the stem of a word can say at most: 0 for grammar and praise, 0.45 for what fits everything, else 1."""
    nothing, little = _tables()
    return 0.0 if word in nothing else 0.45 if word in little else 1.0


@cache
def chinese_nothing() -> frozenset[str]:
    """Return the strings of Chinese that say nothing of what is asked."""
    return frozenset(_NOTHING_CHINESE.split())


@cache
def english_grammar() -> frozenset[str]:
    """Return folded words that show a text to be English."""
    return frozenset(folded(word) for word in _NOTHING.split()) - foreign_grammar() - {"i"}


@cache
def foreign_grammar() -> frozenset[str]:
    """Return folded words that show a text to be in another language of Latin or Cyrillic script."""
    return frozenset(folded(word) for word in _NOTHING_FOREIGN.split()) - _BOTH


#: Grammar of other languages that is English as well.
_BOTH = frozenset(
    (
        "a",
        "am",
        "an",
        "as",
        "die",
        "do",
        "me",
        "no",
        "on",
        "o",
        "y",
        "i",
        "so",
        "was",
        "wish",
        "is",
        "in",
        "be",
        "hay",
        "so",
        "to",
    )
)


@cache
def _tables() -> tuple[frozenset[str], frozenset[str]]:
    def stems(text: str) -> frozenset[str]:
        return frozenset(stem(folded(word)) for word in text.split())

    nothing = stems(_NOTHING + _NOTHING_FOREIGN)
    return nothing, stems(_LITTLE) - nothing
