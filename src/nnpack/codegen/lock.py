"""One lock round LLVM, its import included: two threads compiling at once are slower than one.

What is made with LLVM and kept (packed weights, programs, measurements) is made under it too. It
is held across a fork, so that no child inherits LLVM in the middle of something, or the lock of
a module that a thread it does not have was importing.
"""

from __future__ import annotations

import os
import threading

llvm_lock = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=llvm_lock.acquire,
        after_in_parent=llvm_lock.release,
        after_in_child=llvm_lock.release,
    )
