"""Read and check the config files; every mistake is a `UserError` that names file, field and mend.

Imports nothing heavy and reads no other file but what `make audit` wrote down, since each Slurm job loads the
config again.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_origin

import yaml
from pydantic import TypeAdapter, ValidationError

from ftsafety import paths
from ftsafety.checks import check_project
from ftsafety.config import CATALOGUES, Audited, Axes, Project, Settings, Study, StudyFile, study_place
from ftsafety.errors import UserError, shown
from ftsafety.names import known
from ftsafety.recipes import LIST, ONE, Locked, Name

PRESETS = "config/presets.yaml"
#: Of a file; that of a study with 10,000 cells has a few hundred.
MOST_VALUES = 100_000


def load_project(
    root: Path, settings: dict[str, Any] | None = None, audited: Iterable[Audited] | None = None
) -> Project:
    """Read and check all config files below `root`; `settings` replaces the content of config.yaml, and
    `audited` what was audited in the working folder.

    Raises UserError for the first thing that is wrong.
    """
    if settings is None:
        settings = read_yaml(root, "config/config.yaml")
    catalogues = {name: _read_catalogue(root, name) for name in CATALOGUES}
    presets = read_yaml(root, PRESETS)
    for path in sorted((root / "config/studies").glob("[!.]*.yml")):
        mend = f"name it {path.stem}.yaml"
        raise UserError("is not read: the name ends in .yml", file=f"config/studies/{path.name}", mend=mend)
    files = [path.stem for path in sorted((root / "config/studies").glob("[!.]*.yaml"))]
    variants = {name: _read_studies(root, name, presets) for name in files}
    _refuse_taken_names(variants)
    checked = _validate(Settings, settings, "config/config.yaml")
    if checked.preset is not None:
        known(checked.preset, presets, "config/config.yaml", "preset", PRESETS)
    written = {name: study for studies in variants.values() for name, study in studies.items()}
    audits = {name: study for name, study in written.items() if study.audit is not None}
    project = Project(
        root=root,
        settings=checked,
        studies={name: study for name, study in written.items() if name not in audits},
        files={name: file for file, studies in variants.items() for name in studies},
        lock=read_lock(root),
        audits=audits,
        **catalogues,
    )
    project = with_audits(project, _read_audited() if audited is None else audited)
    check_project(project)
    return project


def with_audits(project: Project, audited: Iterable[Audited]) -> Project:
    """The project with the studies that audit these pairs, and the models that its catalogue lacks.

    Raises UserError where the config no longer has what an audit names.
    """
    models, studies, files, pairs = (
        dict(project.models), dict(project.studies), dict(project.files), dict(project.audited)
    )  # fmt: skip
    for pair in audited:
        place = str(paths.audit_file(pair.study))
        again = "remove this file, or call make audit again"
        name = f"{pair.file}-{pair.variant}" if pair.variant else pair.file
        known(name, project.audits, place, "file", "config/studies/ with an audit", again)
        for model, recipe in pair.entries.items():
            if models.setdefault(model, recipe) != recipe:
                raise UserError(
                    f"is another model than {model!r} of config/models.yaml or of another audit",
                    file=place,
                    field=f"entries.{model}",
                    mend=again,
                )
        for role in ("model", "base"):
            known(getattr(pair, role), models, place, role, "config/models.yaml", again)
        studies[pair.study] = _asked_of(project.audits[name], pair)
        files[pair.study], pairs[pair.study] = pair.study, pair
    return replace(project, models=models, studies=studies, files=files, audited=pairs)


def _asked_of(study: Study, pair: Audited) -> Study:
    """An audit's study with the axes that are the pair's; what a preset says of training is left out."""
    template = pair.template or study.fixed.test_template
    fixed = Axes(model=[pair.base, pair.model], epochs=0, test_template=template)
    title = f"{study.title}: {pair.model} against {pair.base}"
    return study.model_copy(update={"fixed": fixed, "title": title})


def _read_audited() -> list[Audited]:
    """What was audited in the working folder. Raises UserError where that cannot have results."""
    if os.path.lexists(paths.RESULTS) and not paths.RESULTS.is_dir():
        mend = "move it away; where it is a link, make the folder that it names, or mount its disk"
        raise UserError("is no folder", file=paths.RESULTS, mend=mend)
    files = sorted(paths.audit_file("*").parent.glob("[!.]*.yaml"))
    return [_validate(Audited, read_yaml(Path(), str(file)), str(file)) for file in files]


def _read_catalogue(root: Path, name: str) -> dict[str, Any]:
    file, recipe = f"config/{name}.yaml", CATALOGUES[name]
    is_union = get_origin(recipe) is Annotated
    return _validate(dict[Name, recipe], read_yaml(root, file), file, is_union)  # type: ignore[valid-type]


def read_lock(root: Path) -> dict[str, Locked]:
    """What `make lock` wrote; nothing where it was never called."""
    file = "config/lock.yaml"
    content = read_yaml(root, file) if (root / file).exists() else None
    return _validate(dict[str, Locked], content or {}, file)


def _read_studies(root: Path, name: str, presets: dict[str, Any]) -> dict[str, Study]:
    """The study of a file and its variants, by name; what they do not say comes from their preset."""
    file = f"config/studies/{name}.yaml"
    _validate(Name, name, file)
    content = read_yaml(root, file)
    written = _validate(StudyFile, content, file)
    own = {key: value for key, value in content.items() if key != "variants"}
    studies = {}
    for variant, changes in {"": {}, **written.variants}.items():
        preset, place = variant or written.preset, study_place(name, variant)
        merged = _merged(own, changes)
        if preset is not None:
            known(preset, presets, file, f"variants.{variant}" if variant else "preset", PRESETS)
            # a grid that the variant adds has a figure of its own; one without is a misspelt name
            grids = changes.get("grids")
            for grid, axes in grids.items() if isinstance(grids, dict) else ():
                if isinstance(axes, dict) and "figure" not in axes:
                    known(grid, own["grids"], file, f"variants.{variant}.grids", file)
            merged = _merged(presets[preset], merged | {"preset": preset})
        studies[f"{name}-{variant}" if variant else name] = _validate(Study, merged, place)
    return studies


def _refuse_taken_names(variants: dict[str, dict[str, Study]]) -> None:
    """A file's study may not have the name of another file's variant."""
    for file, studies in variants.items():
        for name in studies.keys() & variants.keys() - {file}:
            raise UserError(
                f"{name!r} is the name of a variant of {file!r} already",
                file=f"config/studies/{name}.yaml",
                mend="give the file another name",
            )


def _merged(below: Any, above: Any) -> Any:
    """Mappings key by key, where null takes a key away; of all other values the upper one."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    kept = {key: value for key, value in below.items() if key not in above}
    changed = {key: _merged(below.get(key), value) for key, value in above.items()}
    return kept | {key: value for key, value in changed.items() if value is not None or key not in below}


def read_yaml(root: Path, file: str) -> Any:
    """Raises UserError, with the line, for what YAML's own loader refuses or would silently pass over."""
    try:
        loader = _Loader((root / file).read_text())
        node = loader.get_single_node()
        _refuse_repeated_keys(node)
        return loader.construct_document(node) if node else None
    except FileNotFoundError:
        raise UserError("is missing", file=file, mend="restore it from git") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot be read: {error}", file=file, mend="make it a readable text file in UTF-8"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(
            f"is not valid YAML: {getattr(error, 'problem', None) or error}",
            file=f"{file}:{mark.line + 1}" if mark else file,
            mend="correct this line or the one before it",
        ) from None


_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:  # a month of 13, a number without digits
            kind = node.tag.rpartition(":")[2]
            problem = f"{shown(node.value)} is no {kind}: where it is text, put it into quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def _refuse_repeated_keys(root: yaml.Node | None) -> None:
    """YAML would silently keep the last of them. Aliases are followed: a few may mean millions."""
    todo, count = [root], 0
    while todo:
        node, count = todo.pop(), count + 1
        if count > MOST_VALUES:
            problem = f"with its aliases (*name) it holds more than {MOST_VALUES:,} values"
            raise yaml.constructor.ConstructorError(None, None, problem)
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                todo.append(value)
                if not isinstance(key, yaml.ScalarNode):
                    continue  # the constructor refuses it
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)


def _validate(kind: Any, value: Any, file: str, is_union: bool = False) -> Any:
    """`is_union`: of a catalogue whose entries are of several classes."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        problems: list[Any] = error.errors(include_url=False)
    # An unknown key is often the misspelling of one that is then missing.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    place = list(problem["loc"])
    if is_union:
        del place[1:2]  # after the entry's name pydantic puts its source or kind
    if problem["type"].startswith("union_tag"):
        place.append(problem["ctx"]["discriminator"].strip("'"))
    message, mend = _explain(problem)
    field = ".".join(str(part) for part in place if part not in (ONE, LIST, "[key]"))
    raise UserError(message, file=file, field=field, mend=mend)


_PATTERN_MENDS = {
    "a-zA-Z": "begin with a letter or digit and go on with letters, digits, '.', '_' and '-'",
    "0-9a-f]{64": "write the 64 digits that `python -m ftsafety checksum PATH` prints",
    "0-9a-f]{40": "run `make lock` again: it writes this file",
    "A-Z_": "name the variable, such as OPENAI_API_KEY; a key itself stands in no file",
    "https?": "write http:// or https://, the host and a path, with no name or key in it, or write embedded",
    r"\w.-]+/": "write owner/name, as in the address of its page",
    r"\s*\S": "write a word or more",
    r"\S": "write a word or more: every answer has an empty text",
    "instruction": "say with {instruction} where the instruction stands",
}


def _explain(problem: Any) -> tuple[str, str]:
    """What pydantic found as a sentence, and how to mend it."""
    kind, value, text = problem["type"], problem["input"], problem["msg"]
    found = f"(value {shown(value)})"
    if "api_key_env" in problem["loc"] or ("base_url" in problem["loc"] and re.search("[@?#]", str(value))):
        found = "(not shown: it may be a key)"
    if kind == "extra_forbidden":
        keys = "correct its spelling or remove it; config/schema.json lists the keys"
        return "unknown key", keys  # its value may be a secret: a token, an api_key
    if kind in ("missing", "union_tag_not_found"):
        return "is required", "add this key"
    if kind == "union_tag_invalid":
        tags = problem["ctx"]["expected_tags"]
        return f"unknown value {problem['ctx']['tag']!r}", f"write one of {tags}"
    if value is None:
        return "is empty (value None)", "write a value, or remove the key to get its default"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"should be a mapping {found}", "write `key: value` lines, indented, below it"
    if kind == "string_pattern_mismatch":
        pattern = problem["ctx"]["pattern"]
        mends = [mend for part, mend in _PATTERN_MENDS.items() if part in pattern]
        return f"does not have the form it needs {found}", mends[0]
    if isinstance(value, str) and kind in ("float_type", "int_type") and _NUMBER.fullmatch(value):
        return f"is text and not a number {found}", f"write {_as_yaml_number(value)}"
    if kind == "string_too_long":
        return f"has more than {problem['ctx']['max_length']} characters {found}", "shorten it"
    if kind == "too_short":
        return f"is empty {found}", "write at least one value"
    if kind == "value_error":
        return f"is no address that can be asked: {problem['ctx']['error']} {found}", _PATTERN_MENDS["https?"]
    wanted = text.removeprefix("Input should be ")
    wanted = f"a value {wanted}" if wanted.startswith(("greater", "less")) else wanted
    return f"should be {wanted} {found}", f"write {wanted}"


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def _as_yaml_number(text: str) -> str:
    """As YAML reads it as a number: without quotes; before an exponent a point, in it a sign."""
    digits, e, exponent = text.lower().partition("e")
    if not e:
        return f"{digits} without quotes"
    digits = digits if "." in digits else f"{digits}.0"
    exponent = exponent if exponent[0] in "+-" else f"+{exponent}"
    return f"{digits}e{exponent} (YAML takes {text} for text)"


def json_schema() -> dict[str, Any]:
    """The schema of all config files, for editors: one definition for each kind of file."""
    files: dict[str, Any] = {"config": Settings, "study": StudyFile}
    files |= {name: dict[Name, recipe] for name, recipe in CATALOGUES.items()}  # type: ignore[valid-type]
    definitions: dict[str, Any] = {}
    for name, kind in files.items():
        schema = TypeAdapter(kind).json_schema(ref_template="#/$defs/{model}")
        definitions |= schema.pop("$defs", {})
        definitions[name] = schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Generated: python -m ftsafety schema > config/schema.json",
        "$defs": dict(sorted(definitions.items())),
    }
