"""English and Chinese for the fixed texts of the CLI: one small table, the English text is the key.

What agents, peers and deeper layers say stays as they said it; for errors the Chinese line comes first, their own text after.
"""

from __future__ import annotations

import os

from agentmesh.errors import MeshError

LANGUAGES = ("en", "zh")
_language = "en"

ZH: dict[str, str] = {
    # labels
    "next:": "下一步:",
    "why:": "原因:",
    "error": "错误",
    "interrupted": "已中断",
    "did you mean {names}?": "您是不是想输入 {names}?",
    # overview
    "This node": "本节点",
    "Agents": "智能体",
    "Calls": "调用",
    "Help": "帮助",
    "Start this machine's node in the background; nothing happens if it runs.": "在后台启动本机节点;已在运行则不做任何事。",
    "Stop it.": "停止节点。",
    "Show whether it runs, where, and what it knows.": "查看节点是否运行、地址和已知信息。",
    "List the other nodes; 'peers add SEED' connects to one.": "列出其他节点;'peers add SEED' 连接一个节点。",
    "Show the shape of the mesh: clustering, paths, degrees, zones.": "查看网络的形状:聚集度、路径、度数、区域。",
    "Show machines, agents and who called whom; --stats for figures.": "查看机器、智能体以及谁调用了谁;--stats 显示数据。",
    "{count} more {rows} are not shown": "另有 {count} 个{rows}未显示",
    "machines": "机器",
    "agents": "智能体",
    "edges": "调用边",
    "you": "您",
    "no agents yet": "还没有智能体",
    "no calls in this time": "这段时间没有调用",
    "{count} here": "本机 {count}",
    "{count} answer": "{count} 台有应答",
    "{rate} per minute · {running} under way": "每分钟 {rate} · 进行中 {running}",
    "{rate} per minute": "每分钟 {rate}",
    "{count} in the last hour": "最近一小时 {count}",
    "Show the daemon's log.": "查看守护进程日志。",
    "Tenants: who else lives on this node.": "租户:还有谁使用本节点。",
    "settled": "已设定",
    "Join this node to etcd or Consul: agents there come here, those here go there.": (
        "把本节点与 etcd 或 Consul 相连:那里的智能体进来,这里的出去。"
    ),
    "added": "已添加",
    "Bring in the agents of an agent card, an AI Catalog or an MCP registry.": (
        "接入智能体名片、AI 目录或 MCP 注册表中的智能体。"
    ),
    "nothing was registered": "没有登记任何智能体",
    "{count} could not be brought in": "{count} 个未能接入",
    "no bridges: this node knows no other registry": "没有桥接:本节点不与其他注册中心相连",
    "until the daemon stops: the environment or a flag says otherwise": "仅到守护进程停止为止:环境变量或命令行另有规定",
    "{count} entries more than it takes": "另有 {count} 个条目超出上限",
    "{count} entries of mesh nodes are left alone": "网格节点自己写的 {count} 个条目不予接入",
    "no tenants: everything here is the operator's": "没有租户:这里的一切都归运营者",
    "API keys for programs: make, list, revoke.": "程序用的 API 密钥:创建、列出、吊销。",
    "this is the only time that the key is shown": "密钥只显示这一次",
    "programs and 'agentmesh' itself then use it": "之后程序和 agentmesh 本身都会使用它",
    "no API keys yet": "还没有 API 密钥",
    "Open the web console in the browser, logged in.": "在浏览器中打开已登录的网页控制台。",
    "sessions ended: {count}": "已结束的会话:{count}",
    "the link works once and for {seconds} s; open it in a browser": "链接只能用一次,{seconds} 秒内有效;请在浏览器中打开",
    "revoked": "已吊销",
    "Certify, rotate and revoke node keys under a root key.": "用根密钥签发、轮换和吊销节点密钥。",
    "Show, explain and change settings.": "查看、解释和修改设置。",
    "Local models for search by meaning: list, install, remove.": "按含义搜索所用的本地模型:列出、安装、删除。",
    "embedder {wanted}: {answers} answers": "嵌入器 {wanted}:由 {answers} 应答",
    "not installed: {names}": "未安装:{names}",
    "install {names} too?": "同时安装 {names} 吗?",
    "installing {names}": "正在安装 {names}",
    "already here": "已在本机",
    "installed": "已安装",
    "was not here": "本机没有",
    "fetching": "正在下载",
    "checking": "正在校验",
    "{name} is not installed": "{name} 未安装",
    "or: agentmesh models install --with-extras": "或者:agentmesh models install --with-extras",
    "List the agents of the mesh, or those that match a question.": "列出网络中的智能体,或按问题查找。",
    "Show one agent: card, skills, replicas.": "查看一个智能体:名片、技能、副本。",
    "Bring an agent that already runs into the mesh.": "把已运行的智能体加入网络。",
    "Take an agent out of the mesh.": "让智能体退出网络。",
    "Serve the agents of a Python file and reload it on change.": "运行 Python 文件中的智能体,保存后自动重载。",
    "Serve the mesh to an MCP client.": "向 MCP 客户端提供网络。",
    "Call an agent and stream its answer.": "调用智能体并流式显示回答。",
    "Show what happened in a run, on every node.": "查看一次运行在所有节点上发生的事。",
    "Try it: two nodes and three toy agents on this machine, no API key.": "试一试:本机两个节点、三个玩具智能体,无需 API 密钥。",
    "Check this installation; each finding names the next command.": "检查安装;每项结果都给出下一条命令。",
    "Print a one-page cheat sheet.": "显示一页速查表。",
    "Show versions.": "显示版本。",
    "Run the node in the foreground; with -b in the background.": "在前台运行节点;加 -b 在后台运行。",
    "Stop the node.": "停止节点。",
    "Show, explain and check who may call what.": "查看、解释和检查谁可以调用什么。",
    "Organisations: make their keys, vouch for nodes and agents, join, revoke.": "组织:建密钥、为节点和智能体担保、加入、吊销。",
    "Run this machine's node in the foreground, with settings as flags.": "在前台运行本机节点,设置写成参数。",
    "Show the seeds that this node pulls from and the partners that see its agents.": "查看本节点的种子和伙伴。",
    "no federation: federation.toml names nobody, and no seed is set": "没有联邦:federation.toml 为空,也未设置种子",
    "never": "从未",
    "for each node of it; 'agentmesh status' there shows its id": "对组织的每个节点执行;在该节点上用 agentmesh status 查看其 id",
    "vouched": "已担保",
    "joined": "已加入",
    "left": "已退出",
    "expired": "已过期",
    "this node": "本节点",
    "no organisation: nobody vouches for this node": "没有组织:无人为本节点担保",
    "end the whole organisation {org}?": "要终止整个组织 {org} 吗?",
    # daemon
    "the daemon is not running. Start it now?": "守护进程没有运行。现在启动吗?",
    "starting the daemon": "正在启动守护进程",
    "stopping the daemon": "正在停止守护进程",
    "waiting for the daemon": "正在等待守护进程",
    "already running": "已在运行",
    "running": "运行中",
    "stopped": "已停止",
    "not running": "没有运行",
    "process {pid} did not end within {seconds} s and is killed": "进程 {pid} 在 {seconds} 秒内没有结束,强制终止",
    "port {port} is taken by another program": "端口 {port} 被其他程序占用",
    "created": "已创建",
    "loaded": "已载入",
    "key in {path}": "密钥在 {path}",
    "LAN discovery on": "局域网发现已开启",
    "LAN discovery off": "局域网发现已关闭",
    "HTTP on this machine only": "HTTP 只对本机开放",
    "try it with three toy agents, no API key": "用三个玩具智能体试一试,无需 API 密钥",
    # the mesh
    "{zone} · members {members} · long links {links}": "{zone} · 成员 {members} · 长链路 {links}",
    "nodes in all: about {count}": "全网节点约 {count} 个",
    "cut off from everybody: none of {known} known nodes answers since {since} "
    "(still trying; agents here go on working)": "已与所有节点失去联系:自 {since} 起,{known} 个已知节点均无应答"
    "(仍在尝试;本机智能体继续工作)",
    "cut off: {lost} of {known} known nodes unreachable since {since} (still trying; agents here go on working)": "已隔离:"
    "自 {since} 起,{known} 个已知节点中有 {lost} 个无法到达(仍在尝试;本机智能体继续工作)",
    "asking the mesh": "正在询问网络",
    "{asked} asked, {answered} answered · {edges} links · {parts} part(s)": "询问 {asked} 个,应答 {answered} 个 · "
    "{edges} 条链路 · {parts} 个部分",
    "the survey stopped at its limit; there are more nodes": "调查已达上限;还有更多节点",
    "with {nodes} nodes, C, L and degrees say nothing yet": "只有 {nodes} 个节点,C、L 和度数还没有意义",
    "needs {nodes} nodes": "需要 {nodes} 个节点",
    "Show and verify what callees signed of a call.": "显示并验证被调用方为一次调用签署的回执。",
    "Show, verify, export and prove what this node wrote down.": "显示、验证、导出并证明本节点的审计记录。",
    "the audit log is not what was signed": "审计日志与已签名的内容不符",
    "{count} findings": "{count} 处不符",
    "{count} records hold": "{count} 条记录有效",
    "{count} of them are newer than the last signature": "其中 {count} 条晚于最后一次签名",
    "record {seq} is among the {size} that {node} signed": "记录 {seq} 在 {node} 签名的 {size} 条之中",
    "to undo:": "撤销方法:",
    "open: whoever no rule names may call": "开放:没有规则提到的都可以调用",
    "closed: one's own organisation may call, others need a rule": "封闭:本组织可以调用,其他须有规则",
    "strict: nobody may call whom no rule permits": "严格:没有规则允许就不能调用",
    "nothing could be read: only this node itself may call": "策略无法读取:只有本节点自己可以调用",
    "{count} more; --json has all": "另有 {count} 条;--json 列出全部",
    "{count} entries": "{count} 条",
    "{count} policies": "{count} 条策略",
    "not read: neither lists.toml nor *.cedar": "未读取:既不是 lists.toml 也不是 *.cedar",
    "there are no policy files": "没有策略文件",
    "yes": "可以",
    "no": "不可以",
    "at most {priority}": "最高 {priority}",
    "no organisation named here": "未在此登记组织",
    "Let an agent act in your name, within bounds.": "让一个智能体在限定范围内代表你行事。",
    "Show how far this node trusts agents and nodes; report abuse.": "显示本节点对智能体或节点的信任程度;举报滥用。",
    "this is your own: nobody is judge of its own agents": "这是您自己的:没有人评判自己的智能体",
    "nothing has happened with it yet": "还没有与它发生过任何事",
    "{count} receipts hold": "{count} 份回执有效",
    "1 receipt holds": "1 份回执有效",
    "other calls of the same agents lie between them, or receipts are missing": "其间有同一对智能体的其他调用,或缺少回执",
    # operators
    "Stop every node that obeys this operator, and let them go on.": "停止所有服从此操作者的节点(熔断),以及恢复。",
    "Make and show the key whose orders nodes obey; publish lists and revoke keys with it.": "创建并显示操作者密钥;"
    "用它发布名单、吊销密钥。",
    "on: this node is read-only": "已打开:本节点只读",
    "off": "未打开",
    "this node is read-only": "本节点只读",
    "this node is not read-only": "本节点不是只读",
    "waiting for the nodes": "正在等待各节点确认",
    "{count} of {asked} nodes are read-only": "{asked} 个节点中 {count} 个已只读",
    "{count} of {asked} nodes go on": "{asked} 个节点中 {count} 个已恢复",
    "did not confirm: it may obey other operators": "未确认:它可能服从其他操作者",
    "evidence counts half after {days} days, and an hour adds only so much": "证据在 {days} 天后减半,每小时能增加的也有限",
    "{count} of your own": "其中 {count} 个是自己的",
    "{shown} of {matching} that match, {count} agents": "{matching} 个匹配,显示 {shown} 个,共 {count} 个智能体",
    "{shown} of {matching} that match among records {begin} to {end}": "记录 {begin}-{end} 中 {matching} 个匹配,显示 {shown}",
    "older ones": "更早的记录",
    "{count} settings · digest {digest}": "{count} 项设置 · 摘要 {digest}",
    "does not answer: it hears of it when it is back": "没有应答:它恢复连接后会收到",
    "the daemon does not run: other nodes hear of it when this one starts": "守护进程没有运行:本节点启动后其他节点才会收到",
    "on every other machine it is to stop": "在它要能停止的每台其他机器上运行",
    # agents and calls
    "no agent matches {query}": "没有智能体符合 {query}",
    "no other nodes yet": "还没有其他节点",
    "waiting for {name}": "正在等待 {name}",
    "canceling the remote task": "正在取消远端任务",
    "the remote task was told to stop": "已通知远端任务停止",
    "the answer begins again: it comes from another replica": "回答重新开始:由另一个副本给出",
    "the remote task may still run": "远端任务可能仍在运行",
    "the agent asks for more input": "智能体需要更多输入",
    "{count} events · digest {digest}": "{count} 个事件 · 摘要 {digest}",
    "not every node could be asked: {nodes}": "有节点无法查询: {nodes}",
    "{sent} spans sent, {lost} lost, {waiting} waiting": "已发送 {sent} 个 span, 丢失 {lost}, 等待 {waiting}",
    "part of trace {ids}": "属于追踪 {ids}",
    "meaning by {embedder}": "语义由 {embedder} 比较",
    "words alone": "仅按词语",
    "needs:": "需求:",
    "near misses": "接近但未入选",
    "these filters": "这些筛选条件",
    "{count} more; --top-k shows them": "还有 {count} 个;用 --top-k 显示",
    "{answered} of {asked} questions to the mesh answered": "向网络提出 {asked} 个查询,{answered} 个已答复",
    "registered": "已注册",
    "withdrawn": "已退出",
    "unsigned: others see it as low trust": "未签名:其他节点视为低信任",
    "no runs yet": "还没有运行记录",
    "no run fits": "没有符合条件的运行记录",
    "{shown} of {total} runs": "{total} 个运行中的 {shown} 个",
    "{shown} of {matching} rows that fit": "符合条件的 {matching} 行中的 {shown} 行",
    "connecting": "正在连接",
    # identity
    "certify this node; or give the id of another one": "签发本节点;或给出另一个节点的 id",
    "on every other node": "在其他每个节点上",
    "no root key in {path}": "{path} 中没有根密钥",
    "none": "无",
    # config
    "set": "已设置",
    "removed": "已移除",
    "it takes effect when the node starts again": "节点重新启动后生效",
    "comments were lost; the old file is kept as {path}": "注释已丢失;旧文件保留为 {path}",
    # demo
    "starting two nodes": "正在启动两个节点",
    "starting three agents": "正在启动三个智能体",
    "cleaning up": "正在清理",
    "nothing is left behind": "没有留下任何东西",
    "the nodes keep running; stop them with:": "节点继续运行;用以下命令停止:",
}

#: Error code → what happened, in Chinese. Codes without a row show the English text alone.
ZH_ERRORS: dict[str, str] = {
    "bug": "程序内部错误",
    "agent.canceled": "任务已取消",
    "agent.failed": "智能体出错",
    "budget.exceeded": "预算已用完",
    "config.bootstrap": "bootstrap.json 无法读取",
    "config.file": "配置文件无法读取",
    "config.invalid": "设置不正确",
    "config.key": "没有这个设置",
    "config.profile": "没有这个配置档",
    "config.seed": "种子地址格式不正确",
    "config.value": "设置的值不允许",
    "credential.expired": "设备凭证已过期",
    "credential.missing": "没有设备凭证",
    "credential.revoked": "已被吊销",
    "daemon.failed": "守护进程启动失败",
    "daemon.running": "守护进程已在运行",
    "daemon.starting": "守护进程正在启动",
    "daemon.timeout": "守护进程没有按时应答",
    "daemon.unreachable": "守护进程没有运行",
    "demo.failed": "演示失败",
    "home.newer": "主目录由更新的版本创建",
    "not_found.agent": "没有这个智能体",
    "not_found.run": "没有这次运行",
    "operator.none": "本主目录中没有操作者密钥",
    "order.not_yet_valid": "命令的时间在未来",
    "order.operator": "本节点不服从该操作者",
    "order.replayed": "已有更新的命令生效",
    "port.taken": "端口被占用",
    "refused.busy": "对方正忙",
    "refused.loop": "调用出现循环",
    "refused.read_only": "熔断开关已打开,只读",
    "refused.revoked": "密钥已被吊销",
    "refused.unauthorized": "没有权限",
    "store.full": "磁盘已满",
    "store.read_only": "没有写权限",
    "trust.low": "信任度不足",
    "unreached.closed": "连接已断开",
    "unreached.no_route": "无法到达",
    "unreached.timeout": "超时",
    "usage.command": "没有这个命令",
    "usage.invalid": "用法不正确",
}


def use(choice: str | None = None) -> str:
    """Choose the language: the flag, else AGENTMESH_LANG, LC_ALL, LC_MESSAGES or LANG; return it."""
    global _language
    names = ("AGENTMESH_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    wish = choice or next((os.environ[name] for name in names if os.environ.get(name)), "en")
    _language = "zh" if wish.lower().startswith("zh") else "en"
    return _language


def t(text: str, **values: object) -> str:
    """Return a fixed text in the chosen language, with its ``{placeholders}`` filled."""
    chosen = ZH.get(text, text) if _language == "zh" else text
    return chosen.format(**values) if values else chosen


def error_lines(error: MeshError) -> tuple[str, str | None, str | None]:
    """Return (what, why, next) of an error in the chosen language."""
    what = error.detail
    if _language == "zh":
        code = error.code
        while code and code not in ZH_ERRORS:
            code = code.rpartition(".")[0]
        if code:
            what = f"{ZH_ERRORS[code]}({what})"
    return what, error.why, error.hint
