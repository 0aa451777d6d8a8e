"""PySide6's Qt classes changed to behave as PythonQt shows them in Slicer.

Importing this module changes the classes of the whole process:

- Qt properties are attributes (`label.text`, never `label.text()`), `name` is the object name;
- `object.connect("signal(types)", function)` works, and a slot receives only the arguments it has parameters for;
- keyword arguments are refused with ValueError;
- plain Qt objects take no new attributes, Python subclasses do;
- lists come back as tuples, enumerations are integers.

Source of the behaviour: PythonQt (PythonQtInstanceWrapper, PythonQtSlot, PythonQtSignalReceiver, PythonQtConversion).
"""

import inspect
import re
import sys
import types

if "PySide6" not in sys.modules:
    sys.pyside6_option_python_enum = 0x03  # enumerations derive from int; read once, when PySide6 is imported

import shiboken6
from PySide6 import QtCore, QtGui, QtNetwork, QtTest, QtUiTools, QtWidgets

if not issubclass(QtCore.Qt.AlignmentFlag, int):
    raise ImportError(
        "PySide6 was imported before headless_slicer, so its enumerations are not integers as in PythonQt. "
        "Import headless_slicer first."
    )

QT_MODULES = (QtCore, QtGui, QtWidgets, QtNetwork, QtUiTools, QtTest)
QObject = QtCore.QObject
STAND_IN_PACKAGE = __name__.rpartition(".")[0]

_connectByString, _disconnectByString = QObject.connect, QObject.disconnect
_getProperty, _setProperty = QObject.property, QObject.setProperty
_dynamicPropertyNames = QObject.dynamicPropertyNames
_BoundMethod = type(QtCore.QTimer().isActive)
_connections: dict = {}  # (address of the sender, signature) -> [(function, receiver that Qt knows)]


def _refuseKeywords(what, keywords):
    if keywords:
        raise ValueError(f"{what} was called with keyword arguments ({', '.join(keywords)}); PythonQt takes none")


def _asPythonQt(value):
    """A value from Qt as PythonQt would hand it over."""
    return tuple(value) if type(value) is list else value


class QtCall:
    """A method of a Qt object: refuses keyword arguments, gives lists as tuples."""

    __slots__ = ("function",)

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments, **keywords):
        _refuseKeywords(self.function.__name__, keywords)
        return _asPythonQt(self.function(*arguments))

    def __eq__(self, other):
        return isinstance(other, QtCall) and self.function == other.function

    def __hash__(self):
        return hash(self.function)

    def __repr__(self):
        return f"<Qt method {self.function.__qualname__}>"


class QtSignal:
    """A signal of a Qt object, with connect, disconnect and emit."""

    __slots__ = ("chosen", "sender", "signal")

    def __init__(self, sender, signal, chosen=False):
        self.sender, self.signal, self.chosen = sender, signal, chosen

    def signature(self):
        """Such as 'clicked(bool)': of several forms the first that Qt lists, unless one was chosen by its types."""
        own = re.search(r"SignalInstance (.*) at ", repr(self.signal))[1]
        meta = self.sender.metaObject()
        forms = [meta.method(index) for index in range(meta.methodCount())]
        name = own.partition("(")[0]
        signatures = [bytes(each.methodSignature().data()).decode() for each in forms if each.name() == name.encode()]
        return own if self.chosen or not signatures else signatures[0]

    def connect(self, receiver):
        return _connectSignature(self.sender, self.signature(), receiver)

    def disconnect(self, receiver):
        return _disconnectSignature(self.sender, self.signature(), receiver)

    def emit(self, *arguments):
        self.signal.emit(*arguments)

    __call__ = emit

    def __getitem__(self, types_):
        return QtSignal(self.sender, self.signal[types_], chosen=True)


class _Receiver:
    """What Qt calls in place of a Python function: it cuts the arguments as PythonQt does."""

    def __init__(self, function):
        self.function = function.emit if isinstance(function, QtSignal) else function
        self.count = _argumentCount(self.function)

    def call(self, *arguments):
        if isinstance(self.function, QtCall) and not shiboken6.isValid(self.function.function.__self__):
            return None  # Qt drops the connections of a deleted receiver
        return self.function(*arguments[: self.count])


def _argumentCount(function):
    """How many arguments PythonQt passes: all parameters of a Python function, everything to other callables."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return None
    return code.co_argcount - inspect.ismethod(function)


def _connectSignature(sender, signature, function):
    receiver = _Receiver(function)
    _connections.setdefault((_address(sender), signature), []).append((function, receiver))
    return bool(_connectByString(sender, "2" + signature, receiver.call))


def _disconnectSignature(sender, signature, function):
    known = _connections.get((_address(sender), signature), [])
    for index in reversed(range(len(known))):  # newest first: an older one may belong to a dead object at this address
        if known[index][0] == function:
            _, receiver = known.pop(index)
            return bool(_disconnectByString(sender, "2" + signature, receiver.call))
    return False


def _address(sender):
    return shiboken6.getCppPointer(sender)[0]


def _signalNamed(sender, signature):
    """The normal form of a signature such as 'clicked( bool )'.

    Raises:
        ValueError: the object has no such signal (PythonQt only prints that).
    """
    normal = bytes(QtCore.QMetaObject.normalizedSignature(signature).data()).decode()
    alias = getattr(type(sender), "vtkSignals", {}).get(normal)  # 'currentNodeChanged(vtkMRMLNode*)' of stand-ins
    if alias:
        return getattr(sender, alias).signature()
    if sender.metaObject().indexOfSignal(normal) < 0:
        raise ValueError(f"{type(sender).__name__} has no signal {normal}")
    return normal


def _receiverOf(target):
    if len(target) == 1:
        return target[0]
    receiver, slot = target
    return getattr(receiver, slot.partition("(")[0])


def _connect(self, signal, *target):
    if isinstance(signal, QObject):  # the static form, which PySide's own QTimer.singleShot uses
        return _connectByString(signal, *target)
    return _connectSignature(self, _signalNamed(self, signal), _receiverOf(target))


def _disconnect(self, signal, *target):
    return _disconnectSignature(self, _signalNamed(self, signal), _receiverOf(target))


class _QtProperty(property):
    """A Qt property on objects; on the class the C++ function stays reachable, for names such as QTimer.singleShot."""

    function = None

    def __get__(self, owner, cls=None):
        return self.function if owner is None and self.function is not None else super().__get__(owner, cls)


def _installProperty(cls, metaProperty):
    name = metaProperty.name()
    function = getattr(cls, name, None)
    function = function if callable(function) and not isinstance(function, QtCore.Signal) else None
    setter = getattr(cls, "set" + name[0].upper() + name[1:], None)

    def read(self):
        return _asPythonQt(function(self) if function else _getProperty(self, name))

    def write(self, value):
        if setter:
            setter(self, value)
        elif not _setProperty(self, name, value):
            raise ValueError(f"{type(self).__name__}.{name} does not take {value!r}")

    installed = _QtProperty(read, write if metaProperty.isWritable() else None)
    installed.function = function
    setattr(cls, name, installed)


def _attributeReader(original):
    """`__getattribute__` for a Qt class whose own C slot is `original`."""

    def __getattribute__(self, name):
        if name == "connect":
            return types.MethodType(_connect, self)
        if name == "disconnect":
            return types.MethodType(_disconnect, self)
        try:
            value = original(self, name)
        except AttributeError:
            if name.startswith("__"):
                raise
            return _attributeOfLastResort(self, name)
        if type(value) is _BoundMethod:
            return QtCall(value)
        return QtSignal(self, value) if type(value) is QtCore.SignalInstance else value

    return __getattribute__


def _attributeOfLastResort(self, name):
    """Enumeration values through an object, dynamic properties and child objects by name, as in PythonQt."""
    if hasattr(type(self), name):
        return getattr(type(self), name)
    if name.encode() in [bytes(each.data()) for each in _dynamicPropertyNames(self)]:
        return _asPythonQt(_getProperty(self, name))
    for child in QObject.children(self):
        if child.objectName == name:
            return child
    raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")


def _isQtClass(cls):
    """Whether Slicer would have this class from C++."""
    return cls.__module__.startswith(("PySide6", STAND_IN_PACKAGE + "."))


def _setAttribute(self, name, value):
    cls = type(self)
    described = inspect.getattr_static(cls, name, None)
    if isinstance(described, property):
        described.__set__(self, value)
    elif isinstance(described, QtCore.Property):
        described.fset(self, value)
    elif _isQtClass(cls) and described is None and not (name.startswith("_") and STAND_IN_PACKAGE in cls.__module__):
        if name.encode() not in [bytes(each.data()) for each in _dynamicPropertyNames(self)]:
            raise AttributeError(f"{cls.__name__} comes from C++: it takes no new attribute '{name}'")
        _setProperty(self, name, value)
    else:
        self.__dict__[name] = value


def _constructor(original, name):
    def __init__(self, *arguments, **keywords):
        _refuseKeywords(name, keywords)
        original(self, *arguments)

    return __init__


def _refuseCallables(original):
    """PythonQt's addAction has no form that takes a Python function."""

    def addAction(self, *arguments):
        if any(inspect.isroutine(each) or isinstance(each, QtCall) for each in arguments):
            raise ValueError("addAction takes no Python function in PythonQt; connect 'triggered()' of the action")
        return original(self, *arguments)

    return addAction


def _singleShotOf(original):
    def singleShot(msec, function):
        receiver = _Receiver(function)
        original(int(msec), lambda *_: receiver.call())  # PySide would hold a bound method by a weak reference

    return singleShot


def _delete(self):
    shiboken6.delete(self)


def _classesOf(module):
    members = [getattr(module, name) for name in dir(module)]  # vars() would miss the classes PySide makes on first use
    return [each for each in members if isinstance(each, type) and each.__module__.startswith("PySide6")]


def _changeClass(cls):
    metaObject = cls.staticMetaObject
    for index in range(metaObject.propertyOffset(), metaObject.propertyCount()):
        if metaObject.property(index).name() != "parent":
            _installProperty(cls, metaObject.property(index))
    cls.__setattr__ = _setAttribute
    if cls is QObject or "__getattribute__" in vars(cls):  # a class with a C slot of its own keeps calling that one
        cls.__getattribute__ = _attributeReader(cls.__getattribute__)


def _changeQt():
    classes = {cls for module in QT_MODULES for cls in _classesOf(module)}
    for cls in classes:
        if "__init__" in vars(cls):
            cls.__init__ = _constructor(cls.__init__, cls.__name__)
        if hasattr(cls, "exec") and not hasattr(cls, "exec_"):
            cls.exec_ = cls.exec
    for cls in sorted((c for c in classes if issubclass(c, QObject)), key=lambda c: len(c.__mro__)):
        if hasattr(cls, "staticMetaObject"):
            _changeClass(cls)
    QObject.className = lambda self: self.metaObject().className()
    QObject.name = property(lambda self: _getProperty(self, "objectName"), QObject.setObjectName)
    QObject.delete = _delete
    vars(QtCore.QTimer)["singleShot"].function = _singleShotOf(QtCore.QTimer.singleShot)
    for cls in (QtWidgets.QWidget, QtWidgets.QMenu, QtWidgets.QToolBar):
        cls.addAction = _refuseCallables(cls.addAction)


_changeQt()
