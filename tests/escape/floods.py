"""Programs that use up one thing each: what limits.py holds, and what bench/neighbour.py measures beside. Each is Python for
an agent's own interpreter; it prints `ready HOW COUNT` once it has what it gets, and holds that until it is ended.
"""

HEAD = """
import ctypes, errno, os, signal, socket, sys, time
def ready(error, count):
    os.write(1, f"ready {errno.errorcode.get(error.errno, error.errno) if error else 'none'} {count}\\n".encode())
def hold():
    while True: signal.pause()
def until_refused(take, most):
    count = 0
    try:
        while count < most:
            take(count)
            count += 1
    except OSError as error:
        return error, count
    return None, count
"""

FORK_BOMB = HEAD + """
def child(_):
    if os.fork() == 0: hold()
ready(*until_refused(child, 4096))
while True:  # and goes on trying
    try:
        if os.fork() == 0: hold()
    except OSError: pass
"""

DAEMONS = HEAD + """
reading, writing = os.pipe()
def daemon(_):
    child = os.fork()
    if child == 0:
        os.setsid()
        try:
            grandchild = os.fork()
        except OSError as error:
            os.write(writing, bytes([error.errno])); os._exit(0)
        if grandchild: os._exit(0)
        os.write(writing, b"\\0"); hold()
    number = os.read(reading, 1)[0]
    os.waitpid(child, 0)
    if number: raise OSError(number, "refused")
ready(*until_refused(daemon, 4096))
hold()
"""

MEMORY = HEAD + """
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(100 << 20)
        for at in range(0, len(held), 4096): held[at] = 1
        hold()
hold()
"""

BYTES = HEAD + """
def write(path, most):
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    piece = bytes(1 << 20)
    written = [0]
    def one(_):
        done = 0
        while done < len(piece): done += os.write(file, piece[done:])
    return until_refused(one, most)
ready(*write(sys.argv[1] + "/fill", 2048))
hold()
"""

INODES = HEAD + """
ready(*until_refused(lambda number: os.mknod(f"{sys.argv[1]}/{number}", 0o600 | 0o010000), 100000))
hold()
"""

DESCRIPTORS = HEAD + """
ready(*until_refused(lambda _: os.dup(0), 100000))
hold()
"""

PASSED = HEAD + """
pairs = []
def send(_):
    pair = socket.socketpair()
    pairs.append(pair)
    socket.send_fds(pair[0], [b"x"], [0] * 250)
ready(*until_refused(send, 200))
hold()
"""

LOG = HEAD + """
ready(None, 0)
line = b"x" * 99 + b"\\n"
while True: os.write(1, line * 512)
"""

TRICKLE = HEAD + """
ready(None, 0)
while True:
    os.write(1, b"x")
    time.sleep(1)
"""

SPIN = HEAD + """
for _ in range(4):
    if os.fork() == 0:
        while True: pass
ready(None, 4)
hold()
"""

DENIALS = HEAD + """
libc = ctypes.CDLL(None)
ready(None, 0)
while True: libc.unshare(0x10000000)
"""

STOPPED = HEAD + """
ready(None, 0)
os.kill(os.getpid(), signal.SIGSTOP)
"""
