# One recipe for the image of every connector. The binary is static and built outside, by `make images`, which also
# lays out the context: the binary as "connector", the root certificates, the time zones, the licences.
FROM scratch

ARG CONNECTOR
ARG PROTOCOL
ARG VERSION
ARG REVISION

# What a runtime of Flow's protocol asks an image: which protocol it speaks, and in which codec.
LABEL FLOW_RUNTIME_PROTOCOL=${PROTOCOL} \
      FLOW_RUNTIME_CODEC=proto \
      org.opencontainers.image.title=${CONNECTOR} \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION} \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"

COPY connector /connector
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY zoneinfo.zip /usr/share/zoneinfo.zip
COPY LICENSE-APACHE LICENSE-MIT /licenses/
ENV ZONEINFO=/usr/share/zoneinfo.zip

# Nobody's user. It may write temporary files, such as large transactions that are still open; mount a volume there if they are
# to be elsewhere than in the container's own layer. `pull` writes into folders mounted for it.
COPY --chown=65532:65532 tmp /tmp
USER 65532:65532
ENTRYPOINT ["/connector"]
