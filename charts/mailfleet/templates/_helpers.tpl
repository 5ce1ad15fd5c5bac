{{/* Names, labels, images and what all pods have in common. */}}

{{- define "mailfleet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Prefix of all names; short enough for what is put behind it. */}}
{{- define "mailfleet.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "mailfleet.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* dict root component: what selects the pods of a component. The operator gives its senders the same. */}}
{{- define "mailfleet.selectorLabels" -}}
app.kubernetes.io/name: mailfleet
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* dict root component */}}
{{- define "mailfleet.labels" -}}
{{ include "mailfleet.selectorLabels" . }}
app.kubernetes.io/part-of: mailfleet
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* dict root component values: labels of pods, without what changes with the chart's version only */}}
{{- define "mailfleet.podLabels" -}}
{{ include "mailfleet.selectorLabels" . }}
app.kubernetes.io/part-of: mailfleet
{{- with (.values).podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* dict root image */}}
{{- define "mailfleet.image" -}}
{{- with .root.Values.global.imageRegistry -}}{{ . | trimSuffix "/" }}/{{- end -}}
{{- .image.repository -}}
{{- if .image.digest -}}@{{ .image.digest }}{{- else -}}:{{ .image.tag | default .root.Chart.AppVersion }}{{- end -}}
{{- end -}}

{{/* dict root image: the lines of a container */}}
{{- define "mailfleet.containerImage" -}}
image: {{ include "mailfleet.image" . | quote }}
imagePullPolicy: {{ .image.pullPolicy }}
{{- end -}}

{{- define "mailfleet.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* dict root values: what the specs of all pods have, beside containers and volumes */}}
{{- define "mailfleet.podSpec" -}}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ kindIs "string" . | ternary . (dig "name" "" (kindIs "map" . | ternary . dict)) }}
  {{- end }}
{{- end }}
enableServiceLinks: false
automountServiceAccountToken: {{ .token | default false }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with (.values).nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (.values).affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (.values).tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (.values).priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with (.values).terminationGracePeriodSeconds }}
terminationGracePeriodSeconds: {{ . }}
{{- end }}
{{- end -}}

{{/* dict root component values */}}
{{- define "mailfleet.spread" -}}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
{{ toYaml .values.topologySpreadConstraints | indent 2 }}
{{- else }}
{{- $context := . }}
{{- range tuple "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "mailfleet.selectorLabels" $context | nindent 8 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* string port: health of a service; it answers before it is ready, so that a long start is no death */}}
{{- define "mailfleet.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ . }}}
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}

{{/* dict root seconds: clients see the pod go before its listeners do. The `sleep` action came with 1.30. */}}
{{- define "mailfleet.preStop" -}}
{{- if .seconds }}
lifecycle:
  preStop:
    {{- if semverCompare ">=1.30-0" .root.Capabilities.KubeVersion.Version }}
    sleep: {seconds: {{ .seconds }}}
    {{- else }}
    exec: {command: [sleep, {{ .seconds | quote }}]}
    {{- end }}
{{- end }}
{{- end -}}

{{/* dict root component replicas pdb */}}
{{- define "mailfleet.pdb" -}}
{{- if and .values.pdb.enabled (gt (int .replicas) 1) }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "mailfleet.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "mailfleet.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .values.pdb.maxUnavailable }}
  {{- if semverCompare ">=1.31-0" .root.Capabilities.KubeVersion.Version }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  {{- end }}
  selector:
    matchLabels: {{- include "mailfleet.selectorLabels" . | nindent 6 }}
{{- end }}
{{- end -}}

{{/* dict root component */}}
{{- define "mailfleet.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "mailfleet.fullname" .root }}-{{ .component }}
  namespace: {{ .namespace | default .root.Release.Namespace }}
  labels: {{- include "mailfleet.labels" . | nindent 4 }}
  {{- with .root.Values.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}

{{/* Settings in force: pods are made anew when they change. */}}
{{- define "mailfleet.checksum" -}}
checksum/settings: {{ include "mailfleet.settings" . | sha256sum }}
{{- end -}}

{{/* Names that several templates need. */}}
{{- define "mailfleet.embedded" -}}{{- if eq .Values.kafka.mode "embedded" -}}true{{- end -}}{{- end -}}
{{- define "mailfleet.operatorEnabled" -}}{{- if and .Values.operator.enabled (ne .Values.kafka.mode "embedded") -}}true{{- end -}}{{- end -}}
{{- define "mailfleet.entrance" -}}{{- ternary "embedded" "ingest" (eq .Values.kafka.mode "embedded") -}}{{- end -}}
{{- define "mailfleet.credentialsSecret" -}}{{- .Values.credentials.existingSecret | default (printf "%s-credentials" (include "mailfleet.fullname" .)) -}}{{- end -}}
{{- define "mailfleet.tlsSecret" -}}{{- .Values.ingest.tls.existingSecret | default (printf "%s-ingest-tls" (include "mailfleet.fullname" .)) -}}{{- end -}}
{{- define "mailfleet.policyConfigMap" -}}{{ include "mailfleet.fullname" . }}-policy{{- end -}}

{{/* May senders be made in the egress namespace? */}}
{{- define "mailfleet.egressSenders" -}}
{{- if .Values.egress.senders -}}true{{- end -}}
{{- range $name, $pool := .Values.pools -}}
{{- if eq (dig "egress" "mode" "" $pool) "HostNetwork" -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{- define "mailfleet.proxyUsersSecret" -}}
{{- $found := list .Values.operator.proxyUsersSecret -}}
{{- range $name, $pool := .Values.pools -}}
{{- $found = append $found (dig "egress" "proxy" "authSecretRef" "name" "" $pool) -}}
{{- end -}}
{{- with compact $found }}{{ first . }}{{ end -}}
{{- end -}}

{{/* Does anything live in the egress namespace? */}}
{{- define "mailfleet.egressUsed" -}}
{{- if and (not (include "mailfleet.embedded" .)) (or .Values.egressProxy.enabled (include "mailfleet.egressSenders" .)) -}}true{{- end -}}
{{- end -}}

{{/* Names in a certificate that we make. */}}
{{- define "mailfleet.ingestNames" -}}
{{- $service := printf "%s-ingest.%s.svc" (include "mailfleet.fullname" .) .Release.Namespace -}}
{{- $names := .Values.ingest.tls.certManager.dnsNames | default (list .Values.hostname $service (printf "%s.cluster.local" $service) | compact) -}}
{{- toYaml $names -}}
{{- end -}}
