{{/* The PodTemplateSpec that the operator makes senders from; it adds pool, source, lanes and where the pod runs. */}}
{{- define "mailfleet.senderTemplate" -}}
{{- $me := dict "root" . "component" "sender" "values" .Values.sender -}}
metadata:
  labels: {{- include "mailfleet.podLabels" $me | nindent 4 }}
  annotations:
    {{- include "mailfleet.checksum" . | nindent 4 }}
    {{- with .Values.sender.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "mailfleet.fullname" . }}-sender
  {{- include "mailfleet.podSpec" $me | nindent 2 }}
  containers:
    - name: sender
      {{- include "mailfleet.containerImage" (dict "root" . "image" .Values.image) | nindent 6 }}
      command: [python3, -m, mailfleet_sender]
      args: [--config, /etc/mailfleet/mailfleet.toml, --instance, $(POD_NAME), --http, "{{ .Values.listenAddress }}:8080"]
      env:
        {{- include "mailfleet.environment" . | nindent 8 }}
        {{- with .Values.sender.extraEnv }}{{ toYaml . | nindent 8 }}{{ end }}
      ports:
        - {name: http, containerPort: 8080}
      {{- include "mailfleet.probes" "http" | nindent 6 }}
      {{- include "mailfleet.preStop" (dict "root" . "seconds" 1) | nindent 6 }}
      {{- include "mailfleet.containerSecurity" . | nindent 6 }}
      resources: {{- toYaml .Values.sender.resources | nindent 8 }}
      volumeMounts:
        {{- include "mailfleet.settingsMounts" . | nindent 8 }}
        {{- with .Values.sender.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    {{- include "mailfleet.settingsVolumes" (dict "root" . "settings" (printf "%s-settings" (include "mailfleet.fullname" .))) | nindent 4 }}
    {{- with .Values.sender.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end -}}
