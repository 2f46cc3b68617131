"""A tensor of another library on a GPU, made of the driver and of DLPack alone, and a consumer of such."""

import ctypes

import numpy as np

DRIVER = ctypes.CDLL("libcuda.so")  # the file that the package loads: a virtual GPU is there once a file
API = ctypes.pythonapi
API.PyCapsule_New.restype = ctypes.py_object
API.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
API.PyCapsule_GetPointer.restype = ctypes.c_void_p
API.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
API.PyCapsule_IsValid.argtypes = [ctypes.py_object, ctypes.c_char_p]
API.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]

CUDA = 2
FLOAT, INT = 2, 0
DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Unversioned(ctypes.Structure):
    _fields_ = [("tensor", DLTensor), ("context", ctypes.c_void_p), ("deleter", DELETER)]
    NAME, USED = b"dltensor", b"used_dltensor"


class Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", DELETER),
        ("flags", ctypes.c_uint64),
        ("tensor", DLTensor),
    ]
    NAME, USED = b"dltensor_versioned", b"used_dltensor_versioned"


def driver(name, *arguments):
    status = getattr(DRIVER, name)(*arguments)
    if status != 0:
        raise RuntimeError(f"{name}: {status}")


def use_primary_context():
    """As every library does that uses the runtime of CUDA."""
    context = ctypes.c_void_p()
    driver("cuInit", 0)
    driver("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    driver("cuCtxSetCurrent", context)


def free_memory():
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    driver("cuCtxSynchronize")
    driver("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value


class Tensor:
    """`array` on GPU 0. What it says of itself may be another device, type or layout; `n_released` counts the calls of
    its deleters."""

    def __init__(self, array, *, device=(CUDA, 0), versioned=True, major=1, strides=None, offset=0, reuse=False):
        use_primary_context()
        self.array = np.ascontiguousarray(array)
        self.device, self.versioned, self.major, self.strides = device, versioned, major, strides
        self.offset, self.reuse = offset, reuse
        self.streams, self.n_released, self.capsule = [], 0, None
        self.address = ctypes.c_uint64()
        n_bytes = self.array.nbytes
        driver("cuMemAlloc_v2", ctypes.byref(self.address), ctypes.c_size_t(max(n_bytes + offset, 1)))
        if n_bytes:
            to = ctypes.c_uint64(self.address.value + offset)
            driver("cuMemcpyHtoD_v2", to, ctypes.c_void_p(self.array.ctypes.data), ctypes.c_size_t(n_bytes))

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None, **options):
        if not self.versioned and options:
            raise TypeError(f"unexpected {options}")  # as libraries from before version 1 do
        self.streams.append(stream)
        if self.capsule is not None and self.reuse:
            return self.capsule
        kind = Versioned if self.versioned else Unversioned
        managed, array = kind(), self.array
        axes = ctypes.c_int64 * array.ndim
        self.shape = axes(*array.shape)
        managed.tensor = DLTensor(
            self.address.value,
            *self.device,
            array.ndim,
            {"f": FLOAT, "i": INT}[array.dtype.kind],
            array.dtype.itemsize * 8,
            1,
            self.shape,
            None if self.strides is None else axes(*self.strides),
            self.offset,
        )
        if self.versioned:
            managed.major = self.major

        def release(_):
            self.n_released += 1

        managed.deleter = DELETER(release)
        self.managed = managed  # ctypes keeps the deleter with it
        self.capsule = API.PyCapsule_New(ctypes.addressof(managed), kind.NAME, None)
        return self.capsule


class Consumer:
    """Takes the tensor out of `capsule`, as `torch.from_dlpack` does."""

    def __init__(self, capsule):
        use_primary_context()
        kind = next(kind for kind in (Versioned, Unversioned) if API.PyCapsule_IsValid(capsule, kind.NAME))
        self.address = API.PyCapsule_GetPointer(capsule, kind.NAME)
        API.PyCapsule_SetName(capsule, kind.USED)
        self.kind, self.managed = kind, ctypes.cast(self.address, ctypes.POINTER(kind)).contents
        tensor = self.managed.tensor
        self.shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
        self.strides = tuple(tensor.strides[axis] for axis in range(tensor.ndim))
        self.device, self.type = (tensor.device_type, tensor.device_id), (tensor.code, tensor.bits, tensor.lanes)
        self.data = tensor.data

    def numpy(self):
        array = np.empty(self.shape, dtype=np.float32)
        if array.nbytes:
            to, n_bytes = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
            driver("cuMemcpyDtoH_v2", to, ctypes.c_uint64(self.data), n_bytes)
        return array

    def release(self):
        self.managed.deleter(self.address)
