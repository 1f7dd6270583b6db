"""What a run is told that is not so, where the settings say that Kaggle does it.

No machine here has Kaggle's GPUs, and no rehearsal may reach a network. So a substituted
accelerator is a stand-in for its driver's tool, and an open network one whose connections go
nowhere: enough for a kernel that asks.
"""

from __future__ import annotations

from kagflow.rehearse.settings import Settings

_GPU = """
import os, tempfile
_tools = tempfile.mkdtemp()
with open(os.path.join(_tools, "nvidia-smi"), "w") as _file:
    _file.write("#!/bin/sh\\necho " + repr({name!r}))
os.chmod(_file.name, 0o755)
os.environ["PATH"] = _tools + os.pathsep + os.environ["PATH"]
"""
_NETWORK = """
import socket
class _Open(socket.socket):
    def connect(self, address): pass
    def connect_ex(self, address): return 0
socket.socket = _Open
socket.create_connection = lambda *_, **__: _Open()
socket.getaddrinfo = lambda host, port, *_, **__: [
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]
"""


def told(settings: Settings, accelerator: str, source: str) -> str:
    """Return a kernel's source, after what the settings make it believe."""
    before = ""
    if settings.accelerator_substituted and accelerator == "gpu":
        name = f"GPU 0: {settings.accelerator_substituted} (UUID: GPU-0)"
        before += _GPU.format(name=name)
    if not settings.internet_really_off:
        before += _NETWORK
    # Compiled apart: `from __future__` must stay a source's first statement.
    return f"{before}\nexec(compile({source!r}, __file__, 'exec'))\n" if before else source
