"""The credentials of gRPC's own servers, which follow what is served at this moment.

Apart from the rest of TLS, so that programs without gRPC need not load it.
"""

import grpc

from isthmus.wire import tls


def server_credentials(
    serving: tls.Serving, *, require_client_certificate: bool = False
) -> grpc.ServerCredentials:
    """Make the credentials of a gRPC server that follow a certificate.

    Args:
        serving: Says which certificate the next connection gets.
        require_client_certificate: Refuse whoever shows no certificate of the mesh.
    """
    sent = serving.certificate

    def current() -> grpc.ServerCertificateConfiguration | None:
        # Called by gRPC for each connection, on its own thread; reading one name is atomic.
        nonlocal sent
        if sent is serving.certificate:
            return None
        sent = serving.certificate
        return _configuration(sent)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(sent), current, require_client_authentication=require_client_certificate
    )


def _configuration(certificate: tls.Certificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificate.key_pem.encode(), certificate.chain_pem.encode())],
        root_certificates=certificate.roots_pem.encode(),
    )
