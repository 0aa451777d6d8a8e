"""Stand-in for `slicer.parameterNodeWrapper`: typed parameters in a real vtkMRMLScriptedModuleNode.

Values are stored as Slicer stores them (strings, node references, `name_len` and `name_0` for lists, `pack.member` for
packs, `name_0` for the member of a union), so a scene saved here opens there. Like Slicer, it takes
`typing.Optional[X]` and refuses `X | None`.
"""

import copy
import typing

import slicer
import vtk

from .parameter_storage import storageFor

SlicerParameterNamePropertyName = "SlicerParameterName"


class Default:
    """Annotation: the value of a parameter that nobody has set."""

    def __init__(self, value):
        self.value = value


class Decimals(Default):
    """Annotation for spin boxes and sliders: digits after the point."""


class SingleStep(Default):
    """Annotation for spin boxes and sliders: size of a step."""


class Validator:
    """Annotation that refuses values."""

    def validate(self, value):
        raise TypeError(f"{type(self).__name__} does not say how it validates")


class WithinRange(Validator):
    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value):
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum} to {self.maximum}")


class Minimum(Validator):
    def __init__(self, minimum):
        self.minimum = minimum

    def validate(self, value):
        if value < self.minimum:
            raise ValueError(f"{value} is less than {self.minimum}")


class Maximum(Validator):
    def __init__(self, maximum):
        self.maximum = maximum

    def validate(self, value):
        if value > self.maximum:
            raise ValueError(f"{value} is greater than {self.maximum}")


class Choice(Validator):
    def __init__(self, choices):
        self.choices = list(choices)

    def validate(self, value):
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {self.choices}")


class Exclude(Validator):
    def __init__(self, excludedValues):
        self.excludedValues = list(excludedValues)

    def validate(self, value):
        if value in self.excludedValues:
            raise ValueError(f"{value!r} is excluded")


class ParameterInfo:
    """One declared parameter: `basename`, type, validators, default value."""

    def __init__(self, owner, name, annotated):
        type_ = typing.get_args(annotated)[0] if typing.get_origin(annotated) is typing.Annotated else annotated
        self.annotations = getattr(annotated, "__metadata__", ())
        self.basename, self.unalteredType, self.type = name, annotated, type_
        self.storage = storageFor(type_)
        self.validators = [each for each in self.annotations if isinstance(each, Validator)]
        default = self.annotation(Default)
        given = default.value if default else self.storage.default()
        self._default = getattr(owner, name, given)
        self.validate(self._default)

    def annotation(self, type_):
        return next((each for each in self.annotations if type(each) is type_), None)

    def default(self):
        return copy.copy(self._default)

    def validate(self, value):
        self.storage.check(value)
        for each in self.validators:
            each.validate(value)


def _declared(cls):
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: ParameterInfo(cls, name, hint) for name, hint in hints.items()}


def _split(name):
    top, _, rest = name.partition(".")
    return top, rest


class _ByName:
    """Parameters by their names; those within a pack have dots in theirs."""

    def getValue(self, name):
        top, rest = _split(name)
        value = getattr(self, top)
        return value.getValue(rest) if rest else value

    def setValue(self, name, value):
        top, rest = _split(name)
        if rest:
            getattr(self, top).setValue(rest, value)
        else:
            setattr(self, top, value)

    @classmethod
    def dataType(cls, name):
        return _infoOf(cls, name).unalteredType


class _PackMethods(_ByName):
    def __init__(self, *values, **named):
        given = {**dict(zip(self.allParameters, values, strict=False)), **named}
        for name in given:
            if name not in self.allParameters:
                raise TypeError(f"{type(self).__name__} has no parameter '{name}'")
        for name, info in self.allParameters.items():
            setattr(self, name, given.get(name, info.default()))

    def __eq__(self, other):
        return isinstance(other, type(self)) and all(
            getattr(self, name) == getattr(other, name) for name in self.allParameters
        )

    __hash__ = None


def _packMember(info):
    def write(self, value):
        info.validate(value)
        self.__dict__["_" + info.basename] = value
        if "_owner" in self.__dict__:
            storage, node, name = self._owner
            with slicer.util.NodeModify(node):
                storage.write(node, name, self)

    return property(lambda self: self.__dict__["_" + info.basename], write)


def parameterPack(cls=None):
    """Class decorator: several values that make one parameter."""
    if cls is None:
        return parameterPack
    infos = _declared(cls)
    made = type(cls.__name__, (_PackMethods, cls), {each: _packMember(info) for each, info in infos.items()})
    made.allParameters, made._isParameterPack, made.__module__ = infos, True, cls.__module__
    return made


def _infoOf(cls, name):
    top, rest = _split(name)
    if top not in cls.allParameters:
        raise ValueError(f"{cls.__name__} has no param with the given name: {top}. It has {list(cls.allParameters)}")
    info = cls.allParameters[top]
    return _infoOf(info.type, rest) if rest else info


class _WrapperMethods(_ByName):
    def __init__(self, parameterNode, prefix=None):
        self.parameterNode, self._prefix = parameterNode, prefix or ""
        self._connected, self._nextTag, self._updating = {}, 0, False
        with slicer.util.NodeModify(parameterNode):
            for name, info in self.allParameters.items():
                if not info.storage.isIn(parameterNode, self._prefix + name):
                    info.storage.write(parameterNode, self._prefix + name, info.default())

    def getValue(self, name):
        _infoOf(type(self), name)
        return super().getValue(name)

    def setValue(self, name, value):
        _infoOf(type(self), name)
        super().setValue(name, value)

    def default(self, name):
        return Default(_infoOf(type(self), name).default())

    def isCached(self, name):
        _infoOf(type(self), name)
        return False

    def connectGui(self, gui):
        """Binds the widgets with the property SlicerParameterName, both ways. Returns a tag for disconnectGui."""
        widgets = _widgetsOf(gui)
        named = [(each.property(SlicerParameterNamePropertyName), each) for each in widgets]
        return self.connectParametersToGui({name: widget for name, widget in named if name})

    def connectParametersToGui(self, mapping):
        from .parameter_widgets import connectorFor

        connectors = {name: connectorFor(widget, _infoOf(type(self), name)) for name, widget in mapping.items()}
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.onChanged(lambda name=name, connector=connector: self._fromWidget(name, connector))
        tag, self._nextTag = self._nextTag, self._nextTag + 1
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._toWidgets())
        self._connected[tag] = (connectors, observer)
        return tag

    def disconnectGui(self, tag):
        connectors, observer = self._connected.pop(tag, ({}, None))
        for connector in connectors.values():
            connector.disconnect()
        if observer is not None:
            self.RemoveObserver(observer)

    def _fromWidget(self, name, connector):
        if not self._updating:
            self.setValue(name, connector.read())

    def _toWidgets(self):
        if self._updating:
            return
        self._updating = True
        try:
            for connectors, _ in list(self._connected.values()):
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified):
        return self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)

    def Modified(self):
        self.parameterNode.Modified()


def _widgetsOf(gui):
    from .pythonqt import QtWidgets

    return gui.findChildren(QtWidgets.QWidget) if isinstance(gui, QtWidgets.QWidget) else list(vars(gui).values())


def _wrapperMember(info):
    def read(self):
        name = self._prefix + info.basename
        if not info.storage.isIn(self.parameterNode, name):
            info.storage.write(self.parameterNode, name, info.default())
        return info.storage.read(self.parameterNode, name)

    def write(self, value):
        info.validate(value)
        with slicer.util.NodeModify(self.parameterNode):
            info.storage.write(self.parameterNode, self._prefix + info.basename, value)

    return property(read, write)


def parameterNodeWrapper(cls=None):
    """Class decorator: typed access to the parameters of a vtkMRMLScriptedModuleNode."""
    if cls is None:
        return parameterNodeWrapper
    infos = _declared(cls)
    for reserved in vars(_WrapperMethods):
        if not reserved.startswith("_") and reserved in {*infos, *vars(cls)}:
            raise ValueError(f"'{reserved}' is a reserved name in a parameterNodeWrapper")
    made = type(cls.__name__, (_WrapperMethods, cls), {each: _wrapperMember(info) for each, info in infos.items()})
    made.allParameters, made._isParameterNodeWrapper, made.__module__ = infos, True, cls.__module__
    return made


def isParameterNodeWrapper(classOrObject):
    return getattr(classOrObject, "_isParameterNodeWrapper", False)


def isParameterPack(classOrObject):
    return getattr(classOrObject, "_isParameterPack", False)
