# One recipe for the image of every connector. The binary is static and built outside, by `make images`, which lays out the
# context: the binary as "connector", the root certificates, the time zones, the licences, an empty folder. `make images` packs
# it with tools/image, which gives the same bytes every time; any builder of images takes the same context.
FROM scratch

# What is the same for all connectors comes first, so that machines with several of them keep it once.
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY zoneinfo.zip /usr/share/zoneinfo.zip
COPY LICENSE-APACHE LICENSE-MIT /licenses/
# Temporary files, such as large transactions that are still open; any user may write them. Mount a volume there if they are to be
# elsewhere than in the container's own layer. `pull` writes into folders mounted for it.
COPY --chmod=1777 tmp /tmp
COPY connector /connector
ENV ZONEINFO=/usr/share/zoneinfo.zip

# What a runtime of Flow's protocol asks an image: which protocol it speaks, and in which codec. Connectors speak both; this is
# the faster one.
ARG CONNECTOR
ARG PROTOCOL
ARG VERSION
ARG REVISION
LABEL FLOW_RUNTIME_PROTOCOL=${PROTOCOL} \
      FLOW_RUNTIME_CODEC=proto \
      org.opencontainers.image.title=${CONNECTOR} \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION} \
      org.opencontainers.image.source=https://github.com/sluicedata/sluice \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"

# Nobody's user.
USER 65532:65532
ENTRYPOINT ["/connector"]
