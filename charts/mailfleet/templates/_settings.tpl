{{/* mailfleet.toml: what the chart's values say, and `config` over it. */}}

{{/* YAML of: bootstrap, security, mechanism, username, secret, usernameKey, passwordKey, caSecret, caKey */}}
{{- define "mailfleet.kafka" -}}
{{- $kafka := .Values.kafka -}}
{{- if eq $kafka.mode "strimzi" }}
{{- $cluster := include "mailfleet.strimziCluster" . }}
bootstrap: {{ $cluster }}-kafka-bootstrap:9093
security: SASL_SSL
mechanism: SCRAM-SHA-512
username: {{ include "mailfleet.fullname" . }}
secret: {{ include "mailfleet.fullname" . }}
usernameKey: ""
passwordKey: password
caSecret: {{ $cluster }}-cluster-ca-cert
caKey: ca.crt
{{- else if eq $kafka.mode "external" }}
{{- $sasl := hasPrefix "SASL_" $kafka.security }}
{{- if and $sasl (not $kafka.sasl.existingSecret) }}
{{- fail "kafka.security asks for SASL: name the secret with the password in kafka.sasl.existingSecret" }}
{{- end }}
bootstrap: {{ required "kafka.bootstrapServers is empty. Name your Kafka there, or set kafka.mode to strimzi (the chart renders one) or to embedded (everything in one pod, for trials)" $kafka.bootstrapServers | quote }}
security: {{ $kafka.security }}
mechanism: {{ $kafka.sasl.mechanism }}
username: {{ $kafka.sasl.username | quote }}
secret: {{ ternary $kafka.sasl.existingSecret "" $sasl | quote }}
usernameKey: {{ ternary $kafka.sasl.usernameKey "" (and $sasl (not $kafka.sasl.username)) | quote }}
passwordKey: {{ $kafka.sasl.passwordKey | quote }}
caSecret: {{ ternary $kafka.tls.caSecret "" (hasSuffix "SSL" $kafka.security) | quote }}
caKey: {{ $kafka.tls.caKey | quote }}
{{- else }}
bootstrap: ""
security: PLAINTEXT
mechanism: ""
username: ""
secret: ""
usernameKey: ""
passwordKey: ""
caSecret: ""
caKey: ""
{{- end }}
{{- end -}}

{{- define "mailfleet.strimziCluster" -}}
{{- .Values.kafka.strimzi.clusterName | default (printf "%s-kafka" (include "mailfleet.fullname" .)) -}}
{{- end -}}

{{/* [bus] as YAML */}}
{{- define "mailfleet.bus" -}}
{{- if include "mailfleet.embedded" . }}
kind: embedded
directory: /var/lib/mailfleet/log
{{- else }}
{{- $kafka := include "mailfleet.kafka" . | fromYaml }}
kind: kafka
bootstrap: {{ $kafka.bootstrap | quote }}
security: {{ $kafka.security }}
{{- if $kafka.secret }}
sasl_mechanism: {{ $kafka.mechanism }}
{{- with $kafka.username }}
username: {{ . | quote }}
{{- end }}
password_file: /etc/mailfleet-kafka/{{ $kafka.passwordKey }}
{{- end }}
{{- with $kafka.caSecret }}
ca_file: /etc/mailfleet-kafka-ca/{{ $kafka.caKey }}
{{- end }}
{{- with .Values.kafka.topicPrefix }}
topic_prefix: {{ . | quote }}
{{- end }}
replication: {{ .Values.kafka.replication }}
queue_partitions: {{ .Values.kafka.queuePartitions }}
lanes: {{ .Values.kafka.lanes }}
{{- if .Values.kafka.unsafeDurability }}
unsafe_durability: true
{{- end }}
{{- end }}
{{- end -}}

{{/* [ingest] as YAML */}}
{{- define "mailfleet.ingestSettings" -}}
{{- $ingest := .Values.ingest }}
{{- if and $ingest.proxyProtocol.enabled (not $ingest.proxyProtocol.networks) }}
{{- fail "ingest.proxyProtocol.networks is empty: name the balancers that are believed" }}
{{- end }}
{{- with .Values.hostname }}
hostname: {{ . | quote }}
{{- end }}
credentials_file: /etc/mailfleet-credentials/credentials.toml
listeners:
{{- if $ingest.submission.enabled }}
{{- range $kind, $port := dict "submission" 2587 "implicit_tls" 2465 }}
  - kind: {{ $kind }}
    address: {{ $.Values.listenAddress | quote }}
    port: {{ $port }}
    certificate_file: /etc/mailfleet-tls/tls.crt
    key_file: /etc/mailfleet-tls/tls.key
    {{- if $ingest.proxyProtocol.enabled }}
    proxy_protocol: true
    proxy_networks: {{ $ingest.proxyProtocol.networks | toJson }}
    {{- end }}
{{- end }}
{{- end }}
{{- if $ingest.programs.enabled }}
  - kind: trusted
    name: programs
    address: {{ $.Values.listenAddress | quote }}
    port: 2525
    networks: {{ concat (list "127.0.0.0/8" "::1/128") $ingest.programs.networks | toJson }}
    tenant: {{ $ingest.programs.tenant | quote }}
    stream: {{ $ingest.programs.stream | quote }}
    pool: {{ $ingest.programs.pool | quote }}
    sender_domains: {{ $ingest.programs.senderDomains | toJson }}
{{- end }}
{{- if not (or $ingest.submission.enabled $ingest.programs.enabled) }}
{{- fail "ingest listens for nobody: enable ingest.submission or ingest.programs" }}
{{- end }}
{{- end -}}

{{/* The whole file as TOML */}}
{{- define "mailfleet.settings" -}}
{{- $settings := dict
  "bus" (include "mailfleet.bus" . | fromYaml)
  "logs" (dict "format" .Values.logs.format "level" .Values.logs.level)
  "ingest" (include "mailfleet.ingestSettings" . | fromYaml)
  "router" (dict "policy_file" "/etc/mailfleet-policy/policy.yaml")
-}}
{{- with .Values.hostname }}{{- $_ := set $settings.router "hostname" . }}{{- end }}
{{- with .Values.dns.nameservers }}{{- $_ := set $settings "dns" (dict "nameservers" .) }}{{- end }}
{{- if include "mailfleet.embedded" . }}
{{- $_ := set $settings "run" (dict "deliver" .Values.embedded.deliver "directory" "/var/lib/mailfleet/run"
  "http_address" .Values.listenAddress "http_port" 8080 "ingest_processes" 1 "router_processes" 1 "sender_processes" 1) }}
{{- else if include "mailfleet.operatorEnabled" . }}
{{- $_ := set $settings "egress" (dict "sources" "control") }}
{{- end }}
{{- include "mailfleet.toml" (mustMergeOverwrite $settings (deepCopy .Values.config)) }}
{{- end -}}

{{/* A map of sections as TOML */}}
{{- define "mailfleet.toml" -}}
{{- range $name, $content := . }}
{{- if kindIs "slice" $content }}
{{- range $content }}{{ include "mailfleet.tomlTable" (dict "header" (printf "[[%s]]" $name) "path" $name "value" .) }}{{ end }}
{{- else }}
{{- include "mailfleet.tomlTable" (dict "header" (printf "[%s]" $name) "path" $name "value" $content) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* dict header path value: one table; JSON's text, number, boolean and array are TOML's too */}}
{{- define "mailfleet.tomlTable" -}}
{{- $path := .path -}}
{{ .header }}
{{ range $key, $value := .value }}
{{- if not (or (kindIs "invalid" $value) (kindIs "map" $value) (include "mailfleet.tomlTables" $value)) -}}
{{ $key }} = {{ $value | toJson }}
{{ end -}}
{{- end }}
{{ range $key, $value := .value }}
{{- $inner := printf "%s.%s" $path $key -}}
{{- if kindIs "map" $value -}}
{{ include "mailfleet.tomlTable" (dict "header" (printf "[%s]" $inner) "path" $inner "value" $value) }}
{{- else if include "mailfleet.tomlTables" $value -}}
{{ range $value }}{{ include "mailfleet.tomlTable" (dict "header" (printf "[[%s]]" $inner) "path" $inner "value" .) }}{{ end }}
{{- end -}}
{{- end }}
{{- end -}}

{{- define "mailfleet.tomlTables" -}}
{{- if and (kindIs "slice" .) . }}{{- if kindIs "map" (first .) }}true{{- end }}{{- end }}
{{- end -}}

{{/* Environment of every pod that reads the settings */}}
{{- define "mailfleet.environment" -}}
{{- $kafka := include "mailfleet.kafka" . | fromYaml -}}
- name: MAILFLEET_CONFIG
  value: /etc/mailfleet/mailfleet.toml
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: MAILFLEET_ANNOUNCE
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- if $kafka.usernameKey }}
- name: MAILFLEET_BUS__USERNAME
  valueFrom: {secretKeyRef: {name: {{ $kafka.secret }}, key: {{ $kafka.usernameKey }}}}
{{- end }}
{{- end -}}

{{/* dict root settings: settings is the name of the ConfigMap */}}
{{- define "mailfleet.settingsVolumes" -}}
{{- $kafka := include "mailfleet.kafka" .root | fromYaml -}}
- name: settings
  configMap: {name: {{ .settings }}}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- with $kafka.secret }}
- name: kafka
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with $kafka.caSecret }}
- name: kafka-ca
  secret: {secretName: {{ . }}, items: [{key: {{ $kafka.caKey }}, path: {{ $kafka.caKey }}}]}
{{- end }}
{{- end -}}

{{- define "mailfleet.settingsMounts" -}}
{{- $kafka := include "mailfleet.kafka" . | fromYaml -}}
- {name: settings, mountPath: /etc/mailfleet, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if $kafka.secret }}
- {name: kafka, mountPath: /etc/mailfleet-kafka, readOnly: true}
{{- end }}
{{- if $kafka.caSecret }}
- {name: kafka-ca, mountPath: /etc/mailfleet-kafka-ca, readOnly: true}
{{- end }}
{{- end -}}

{{/* What ingest (alone or in the embedded pod) has besides */}}
{{- define "mailfleet.ingestVolumes" -}}
- name: credentials
  secret: {secretName: {{ include "mailfleet.credentialsSecret" . }}, optional: true, defaultMode: 0440}
{{- if .Values.ingest.submission.enabled }}
- name: tls
  secret: {secretName: {{ include "mailfleet.tlsSecret" . }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{- define "mailfleet.ingestMounts" -}}
- {name: credentials, mountPath: /etc/mailfleet-credentials, readOnly: true}
{{- if .Values.ingest.submission.enabled }}
- {name: tls, mountPath: /etc/mailfleet-tls, readOnly: true}
{{- end }}
{{- end -}}

{{- define "mailfleet.ingestPorts" -}}
{{- if .Values.ingest.submission.enabled }}
- {name: submission, containerPort: 2587}
- {name: submissions, containerPort: 2465}
{{- end }}
{{- if .Values.ingest.programs.enabled }}
- {name: programs, containerPort: 2525}
{{- end }}
{{- end -}}
