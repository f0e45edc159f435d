"""Writes the table of flags into `docs/configuration.md`, from the config classes. Run it after changing one.

    .venv/bin/python docs/write_flags.py

`tests/config/test_docs.py` fails when the page is behind.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lerobot_ray.config import schema
from lerobot_ray.config.env import EnvConfig
from lerobot_ray.config.help import default_text
from lerobot_ray.config.optim import OptimizerConfig, SchedulerConfig
from lerobot_ray.config.train import TrainConfig

PAGE = Path(__file__).parent / "configuration.md"
BEGIN, END = "<!-- flags: written by docs/write_flags.py -->", "<!-- end of flags -->"
OWNERS = {"lerobot": "", "newer lerobot": "newer", "lerobot_ray": "ours"}
KINDS = {"env": EnvConfig, "optimizer": OptimizerConfig, "scheduler": SchedulerConfig}


def cell(text: str) -> str:
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    return "`".join(part.replace("<", "&lt;") if i % 2 == 0 else part for i, part in enumerate(parts))


def row(setting: schema.Setting, *, shorten: str = "") -> str:
    default = default_text(setting)
    if setting.default is dataclasses.MISSING:
        default = "required"
    elif len(default) > 40:
        default = "see help"
    else:
        default = f"`{default}`"
    doc = setting.doc if setting.doc.endswith((".", ":")) else f"{setting.doc}."
    if setting.expected.startswith("one of") and not setting.name.endswith(".type"):
        doc += f" ({setting.expected.removeprefix('one of ')})"
    if setting.notice:
        doc += f" Ignored here: {setting.notice}."
    return f"| `{setting.name.removeprefix(shorten)}` | {cell(default)} | {OWNERS[setting.origin]} | {cell(doc)} |"


def table(settings: list[schema.Setting], **options: str) -> list[str]:
    return [
        "| flag | default | whose | what for |",
        "| --- | --- | --- | --- |",
        *(row(s, **options) for s in settings),
        "",
    ]


def kinds_of(section: str, base: type) -> list[str]:
    """A table of what each kind of a section has besides what they share."""
    lines: list[str] = []
    shared = {field.name: field.default for field in dataclasses.fields(base)}
    for name, kind in sorted(base.get_known_choices().items()):  # type: ignore[attr-defined]
        chosen = next(
            s for s in schema.sections(TrainConfig, chosen={section: kind}) if s.name.startswith(f"{section} (")
        )
        own = [s for s in chosen.settings if s.name.split(".")[-1] not in {"type", "features", "features_map"}]
        differ = [s for s in own if shared.get(s.name.split(".")[-1], dataclasses.MISSING) != s.default]
        lines += [f"`--{section}.type={name}`: {cell(schema.first_paragraph(kind))}", "", *table(differ)]
    return lines


def flags() -> str:
    lines: list[str] = []
    for section in schema.sections(TrainConfig):
        if not section.settings:
            continue
        lines += [f"### {section.name or 'The run'}", ""]
        lines += [cell(section.doc), ""] if section.name else []
        lines += table(section.settings)
        if section.name in KINDS:
            lines += kinds_of(section.name, KINDS[section.name])
    return "\n".join(lines)


def page() -> str:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{flags()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
