"""How the values of typed parameters are kept in a vtkMRMLScriptedModuleNode: strings and node references, as by Slicer."""

import contextlib
import enum
import pathlib
import types
import typing

import slicer


class _Text:
    """How values of one type are written as one string."""

    def __init__(self, type_, default, encode=str, decode=None, accepts=None):
        self.type, self.startValue, self.encode = type_, default, encode
        self.decode, self.accepts = decode or type_, accepts or type_

    def default(self):
        return self.startValue

    def check(self, value):
        if value is None:
            raise ValueError("the value must not be None")
        if not isinstance(value, self.accepts):
            raise TypeError(f"{value!r} is not of type {self.type.__name__}")

    def isIn(self, node, name):
        return node.HasParameter(name)

    def write(self, node, name, value):
        node.SetParameter(name, self.encode(value))

    def read(self, node, name):
        return self.decode(node.GetParameter(name))

    def remove(self, node, name):
        node.UnsetParameter(name)


class _Node(_Text):
    """A node reference; the empty parameter of the same name says that a value, perhaps None, was set."""

    def __init__(self, type_):
        super().__init__(type_, None)

    def check(self, value):
        if value is not None:
            super().check(value)

    def write(self, node, name, value):
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node, name):
        return node.GetNodeReference(name)

    def remove(self, node, name):
        super().remove(node, name)
        node.RemoveNodeReferenceIDs(name)


class _Nothing(_Text):
    """None, as a member of Optional."""

    def __init__(self):
        super().__init__(type(None), None, encode=lambda value: "True", decode=lambda text: None)

    def check(self, value):
        if value is not None:
            raise TypeError(f"{value!r} is not None")


class _Union:
    """One of several types; the index of the type is part of the parameter's name."""

    def __init__(self, members):
        self.members = members

    def default(self):
        return None if isinstance(self.members[-1], _Nothing) else self.members[0].default()

    def _memberFor(self, value):
        for index, member in enumerate(self.members):
            with contextlib.suppress(TypeError, ValueError):
                member.check(value)
                return index, member
        raise TypeError(f"{value!r} is none of the types that this parameter takes")

    def check(self, value):
        self._memberFor(value)

    def _stored(self, node, name):
        found = [(i, member) for i, member in enumerate(self.members) if member.isIn(node, f"{name}_{i}")]
        return found[0] if found else None

    def isIn(self, node, name):
        return self._stored(node, name) is not None

    def write(self, node, name, value):
        index, member = self._memberFor(value)
        self.remove(node, name)
        member.write(node, f"{name}_{index}", value)

    def read(self, node, name):
        index, member = self._stored(node, name)
        return member.read(node, f"{name}_{index}")

    def remove(self, node, name):
        for index, member in enumerate(self.members):
            member.remove(node, f"{name}_{index}")


class _List:
    """A list of values. Unlike Slicer's, what is read is a copy: changing it does not change the node."""

    def __init__(self, member):
        self.member = member

    def default(self):
        return []

    def check(self, values):
        for value in values:
            self.member.check(value)

    def isIn(self, node, name):
        return node.HasParameter(f"{name}_len")

    def _length(self, node, name):
        return int(node.GetParameter(f"{name}_len") or 0)

    def write(self, node, name, values):
        for index in range(len(values), self._length(node, name)):
            self.member.remove(node, f"{name}_{index}")
        for index, value in enumerate(values):
            self.member.write(node, f"{name}_{index}", value)
        node.SetParameter(f"{name}_len", str(len(values)))

    def read(self, node, name):
        return tuple(self.member.read(node, f"{name}_{index}") for index in range(self._length(node, name)))

    def remove(self, node, name):
        self.write(node, name, [])
        node.UnsetParameter(f"{name}_len")


class _Pack:
    """The members of a parameter pack, each under `name.member`."""

    def __init__(self, type_):
        self.type, self.parameters = type_, type_.allParameters

    def default(self):
        return self.type()

    def check(self, value):
        if not isinstance(value, self.type):
            raise TypeError(f"{value!r} is not a {self.type.__name__}")

    def isIn(self, node, name):
        first = next(iter(self.parameters.values()))
        return first.storage.isIn(node, f"{name}.{first.basename}")

    def write(self, node, name, value):
        for each in self.parameters.values():
            each.storage.write(node, f"{name}.{each.basename}", value.getValue(each.basename))

    def read(self, node, name):
        values = {each: p.storage.read(node, f"{name}.{each}") for each, p in self.parameters.items()}
        pack = self.type(**values)
        pack.__dict__["_owner"] = (self, node, name)  # from now on each change of a member is written
        return pack

    def remove(self, node, name):
        for each in self.parameters.values():
            each.storage.remove(node, f"{name}.{each.basename}")


def storageFor(type_):
    """How values of `type_` are kept in a parameter node.

    Raises:
        TypeError: Slicer's wrapper does not take this type.
    """
    origin, members = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Union:
        return _Union([_Nothing() if each is type(None) else storageFor(each) for each in members])
    if origin is types.UnionType:
        raise TypeError(f"Slicer's parameterNodeWrapper does not take '{type_}'; write typing.Optional or typing.Union")
    if origin is list:
        return _List(storageFor(members[0]))
    if getattr(type_, "_isParameterPack", False):
        return _Pack(type_)
    if isinstance(type_, type):
        found = _storageForClass(type_)
        if found:
            return found
    raise TypeError(f"no serializer for parameters of type {type_}")


def _storageForClass(type_):
    plain = {
        bool: _Text(bool, False, decode=lambda text: text == "True"),
        int: _Text(int, 0),
        float: _Text(float, 0.0, accepts=(int, float)),
        str: _Text(str, ""),
    }
    if type_ in plain:
        return plain[type_]
    if issubclass(type_, pathlib.PurePath):
        return _Text(type_, type_())
    if issubclass(type_, enum.Enum):
        return _Text(type_, next(iter(type_)), encode=lambda value: value.name, decode=lambda text: type_[text])
    return _Node(type_) if issubclass(type_, slicer.vtkMRMLNode) else None
