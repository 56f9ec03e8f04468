# Licences

What the operator's and the simulator's images are built from, and under which licence each part
is. `make licenses` writes this page, and `make check-licenses`, which is a part of `make test`,
fails if it is not current or if a licence is not among those that go well with Apache-2.0 in a
binary: Apache-2.0, BSD-2-Clause, BSD-3-Clause, ISC and MIT.

| package | licence |
| --- | --- |
{{- range . }}
| {{ .Name }} | {{ .LicenseName }} |
{{- end }}
