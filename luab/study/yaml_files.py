"""Reading configuration files strictly.

Apart from `luab.study.config`, so that digests of code that only reads a list of downloads do not cover every key of
the configuration.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from luab.errors import ConfigError, DataError
from luab.files import read_text, unique_keys


class _Loader(yaml.SafeLoader):
    """Refuses keys that stand twice and numbers that YAML reads in another base; dates stay text."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Composes a section of `key: value` lines; ConfigError if a key stands twice."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (first := lines.setdefault(key.value, _line(key))) != _line(key):
                raise ConfigError(
                    f"{self.name}, line {_line(key)}: the key `{key.value}` is already set in line {first}, and only "
                    "one of the two would have an effect. Remove one of them."
                )
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Reads a number as people do; ConfigError where YAML 1.1 would read base 8 (010) or base 60 (1:30)."""
        is_integer = node.tag.endswith(":int")
        number = self.construct_yaml_int(node) if is_integer else self.construct_yaml_float(node)
        if ":" in node.value or (is_integer and re.match(r"[-+]?0[0-9_]", node.value)):
            raise ConfigError(
                f"{self.name}, line {_line(node)}: YAML reads {node.value} as the number {number}. Write {number} if "
                f'that is what you mean, the number without leading zeros, or "{node.value}" in quotes for text.'
            )
        return number


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)


def read_yaml(file: Path | str) -> dict[str, Any]:
    """Reads a YAML or JSON file of `key: value` lines, in UTF-8.

    Raises:
        ConfigError: The file is missing, is not such a file, has a key twice, or has a number in base 8 or 60.
    """
    try:
        text = read_text(file)
        if Path(file).suffix == ".json":
            content = json.loads(text, object_pairs_hook=unique_keys)
        else:
            loader = _Loader(text)
            loader.name = str(file)
            content = loader.get_single_data()
    except OSError as error:
        raise ConfigError(
            f"{file}: expected a configuration file; it is missing or unreadable ({error.strerror})."
        ) from error
    except yaml.YAMLError as error:
        tab = "\nIndent with spaces, not with tabs." if "'\\t'" in str(error) else ""
        raise ConfigError(f"{file}: expected YAML; {error}{tab}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: expected JSON; {error}.") from error
    except DataError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected `key: value` lines, found {type(content).__name__}.")
    return content
