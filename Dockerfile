# SPDX-License-Identifier: Apache-2.0
#
# Two images: the operator (the default) and, with --target simulator, the
# simulator of Connect's API. make docker-build builds both.
#
# The base images are named by tag: the project is developed where no registry can
# be asked for their digests. Dependabot proposes those, where it runs.

FROM --platform=$BUILDPLATFORM golang:1.26 AS source
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY *.go ./
COPY api ./api
COPY cmd ./cmd
COPY internal ./internal

FROM source AS build-simulator
ARG TARGETOS TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w" -o /connectsim ./cmd/connectsim

FROM gcr.io/distroless/static:nonroot AS simulator
COPY --from=build-simulator /connectsim /connectsim
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/connectsim", "--addr=:8080"]

FROM source AS build-manager
ARG TARGETOS TARGETARCH VERSION=devel
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /manager .

FROM gcr.io/distroless/static:nonroot AS manager
COPY --from=build-manager /manager /manager
USER 65532:65532
ENTRYPOINT ["/manager"]
