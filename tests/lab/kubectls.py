"""kubectl, and the small one that stands in for it, against a lab of a test's own."""

import os
import shutil
import subprocess
import sys

import pytest

from isthmus.testing import pace

PROGRAMS = {
    "kubectl": ["kubectl"],
    "small": [sys.executable, "-m", "isthmus", "kubectl"],
}


class Kubectl:
    """One of the programs, as the lab's administrator."""

    def __init__(self, kind, lab, folder, *, cluster="cluster1"):
        if kind == "kubectl" and shutil.which("kubectl") is None:
            pytest.skip("this machine has no kubectl; the small one is held to the same rules")
        self.argv = [*PROGRAMS[kind], "--context", cluster]
        self.folder = folder
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(lab.home / lab.name / "kubeconfig"),
            "HOME": str(folder),
            "KUBE_EDITOR": "true",
        }

    def attempt(self, *words, given="", timeout=30, **environment):
        """Run it; return how it ended."""
        return subprocess.run(
            [*self.argv, *words],
            env={**self.environment, **environment},
            cwd=self.folder,
            input=given,
            text=True,
            capture_output=True,
            timeout=pace.patience(timeout),
            check=False,
        )

    def __call__(self, *words, **more):
        """Run what must succeed; return what it printed."""
        ended = self.attempt(*words, **more)
        assert ended.returncode == 0, f"{words}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def refused(self, *words, **more):
        """Run what must fail; return what it said about it."""
        ended = self.attempt(*words, **more)
        assert ended.returncode not in {0, 124}, ended.stdout
        assert "Traceback" not in ended.stderr
        return ended.stderr

    def start(self, *words):
        """Run it beside the test."""
        return subprocess.Popen(
            [*self.argv, *words],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


HELLO = """
apiVersion: v1
kind: Service
metadata: {name: hello, labels: {app: hello}}
spec:
  ports: [{port: 80, name: http, targetPort: web}]
  selector: {app: hello}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello, labels: {app: hello}}
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: hello
        image: docker.io/istio/examples-helloworld-v1:1.0
        ports: [{containerPort: 5000, name: web}]
        readinessProbe: {httpGet: {path: /health, port: web}, periodSeconds: 1}
      - {name: side, image: busybox, command: [sh, -c, "echo beside; sleep infinity"]}
"""
