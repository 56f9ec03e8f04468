{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{- define "operator.prefix" -}}
{{- .Values.namePrefix | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "operator.selector" -}}
app.kubernetes.io/name: rpi-connect-operator
{{- end -}}

{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "operator.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{/* The ports of the metrics and of the probes; 0 where none are served. */}}
{{- define "operator.metricsPort" -}}
{{ index .Values.flags "metrics-bind-address" | default ":8443" | splitList ":" | last }}
{{- end -}}
{{- define "operator.probePort" -}}
{{ index .Values.flags "health-probe-bind-address" | default ":8081" | splitList ":" | last }}
{{- end -}}

{{/* All flags, as a list. */}}
{{- define "operator.args" -}}
{{- range $name, $value := .Values.flags }}
{{- if kindIs "bool" $value }}
- {{ if $value }}--{{ $name }}{{ else }}--{{ $name }}=false{{ end }}
{{- else if kindIs "float64" $value }}
- {{ printf "--%s=%s" $name ($value | toJson) | quote }}
{{- else }}
- {{ printf "--%s=%v" $name $value | quote }}
{{- end }}
{{- end }}
{{- with .Values.watchNamespaces }}
- --watch-namespaces={{ join "," . }}
{{- end }}
{{- if .Values.connectCA.configMap }}
- --connect-ca-file=/etc/rpi-connect/{{ .Values.connectCA.key }}
{{- end }}
{{- end -}}

{{- define "operator.subjects" -}}
- kind: ServiceAccount
  name: {{ include "operator.prefix" . }}-controller-manager
  namespace: {{ .Release.Namespace }}
{{- end -}}
