"""What one client of discovery may use up, and how long anybody waits for it.

Source: security rule XA-5.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may use up.

    Attributes:
        proof_s: Seconds until a caller must be proven.
        first_message_s: Seconds until the first message must have come.
        ready_s: Seconds that who comes before we know the mesh may wait for us.
        write_s: Seconds that one message may take to be accepted by the connection.
        answer_s: Seconds that changes of endpoints wait for the answer to those before, if these
            are many; who never answers is told all the same.
        age_s: Seconds after which a stream ends, give or take a half, so that proxies spread over
            replicas and prove themselves again; 0 never.
        together_s: Seconds in which a node proxy may ask for policies beside workloads.
        streams_per_pod: Open streams of one pod; one more than it needs, for the overlap.
        streams_per_s: New streams each second, from all callers together.
        pod_streams_per_s: The same from one pod, so that one cannot keep the others out.
    """

    proof_s: float = 10.0
    first_message_s: float = 20.0
    ready_s: float = 30.0
    write_s: float = 30.0
    answer_s: float = 5.0
    age_s: float = 0.0
    together_s: float = 0.1
    streams_per_pod: int = 2
    streams_per_s: int = 400
    pod_streams_per_s: int = 10
