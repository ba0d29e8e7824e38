"""HTTP/2 and gRPC as this control plane serves them: state tables first, sockets last."""
