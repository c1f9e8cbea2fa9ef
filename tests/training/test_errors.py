import inspect

from training import errors


def test_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    tree = errors.__doc__.split("\n\n")[1]
    lines = [line.split(maxsplit=1) for line in tree.splitlines()]
    depths = [len(line) - len(line.lstrip()) for line in tree.splitlines()]
    parents: dict[int, str] = {}
    for (name, *sentence), depth in zip(lines, depths, strict=True):
        kind = getattr(errors, name)
        assert kind.__base__.__name__ == parents.get(depth - 2, "Exception")
        assert not sentence or str(inspect.getdoc(kind)).rstrip(".").lower() == sentence[0].lower()
        parents[depth] = name
    classes = {name for name, kind in vars(errors).items() if inspect.isclass(kind)}
    assert {name for name, *_ in lines} == classes
