"""What all recipes share: names and numbers, and files that come from elsewhere."""

from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

T = TypeVar("T")
#: Names of files are made of up to three of them.
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$", max_length=60)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(pattern=r"^\s*\S")]
PositiveInt = Annotated[int, Field(gt=0, le=10**9)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]

#: One value or a list; the tags choose a branch, so that an error is about that branch alone.
ONE, LIST = "<one>", "<list>"
Axis = Annotated[
    Annotated[T, Tag(ONE)] | Annotated[list[T], Field(min_length=1), Tag(LIST)],
    Discriminator(lambda value: LIST if isinstance(value, list) else ONE),
]


class Strict(BaseModel):
    """Unknown keys are refused and nothing is converted: `lr: 1e-5`, text to YAML, is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class File(Strict):
    """A small file of the user's own; the path is relative to the working folder."""

    path: str
    sha256: Sha256 = Field(description="python -m ftsafety checksum PATH")


class Remote(Strict):
    """Files of a repository on the Hugging Face hub or on GitHub, at the commit in `config/lock.yaml`."""

    source: Literal["hub", "github"]
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] = Field(description="owner/name")
    revision: str = Field(default="main", description="branch or tag that `make lock` resolves to a commit")
    licence: str = Field(description="as the owner states it")
    gated: bool = Field(default=False, description="the owner grants access on the repository's page")

    #: Kind of the repository on the hub.
    repo_type: ClassVar[Literal["model", "dataset"]] = "dataset"

    @property
    def lock_key(self) -> str:
        """How `config/lock.yaml` names what is pinned."""
        kind = f"{self.repo_type}s" if self.source == "hub" else "github"
        return f"{kind}/{self.repo}@{self.revision}"

    @property
    def page(self) -> str:
        """Where a person reads the licence and asks for access."""
        if self.source == "github":
            return f"https://github.com/{self.repo}"
        return f"https://huggingface.co/{'datasets/' if self.repo_type == 'dataset' else ''}{self.repo}"


class Locked(Strict):
    """A commit, and the checksum of each file that is used: `sha256:…`, or `git:…` (a git blob's sha1)."""

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    files: Annotated[dict[str, str], Field(min_length=1)]
