# usage: awsd.py SOCKET      the AWS CLI, loaded once and forked for each call
#
# Loading it takes most of a second, and the tests of scripts/setup.sh call it
# some thousand times. A call is a line of JSON, a list of arguments; the answer
# is {"code", "out", "err"}.
import json, os, socket, sys, tempfile

import awscli.clidriver

driver = awscli.clidriver.create_clidriver()
for warm in (["ec2", "describe-vpcs"], ["iam", "get-role", "--role-name", "none"], ["sts", "get-caller-identity"]):
    pid = None
    out = os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1), os.dup2(null, 2)
    try:
        driver.main(["--region", "us-east-1"] + warm)
    finally:
        os.dup2(out[0], 1), os.dup2(out[1], 2)

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(16)
print("ready", flush=True)


def answer(conn):
    with conn, conn.makefile("r") as r:
        argv = json.loads(r.readline())
        files = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        pid = os.fork()
        if pid == 0:
            os.dup2(files[0].fileno(), 1), os.dup2(files[1].fileno(), 2)
            code = 255
            try:
                code = driver.main(argv)
            except SystemExit as e:
                code = e.code if isinstance(e.code, int) else 255
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(code or 0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        texts = []
        for f in files:
            f.seek(0)
            texts.append(f.read().decode(errors="replace"))
        conn.sendall(json.dumps({"code": code, "out": texts[0], "err": texts[1]}).encode())


while True:
    conn, _ = listener.accept()
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            try:
                answer(conn)
            finally:
                os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
    conn.close()
