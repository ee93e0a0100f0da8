// Command manifest checks a Kubernetes manifest with a DaemonSet against the types of Kubernetes, in
// which no unknown field is accepted, and against itself. It prints what podman needs to run a
// container of it in the same way, so that what is tested is what the manifest says.
//
//	manifest FILE
//	manifest FILE CONTAINER NODE SECRETS
//
// NODE is the node's name; SECRETS is a directory with one directory for each Secret. The arguments
// for "podman run" are each followed by a NUL.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// manifest is what the documents of the file say.
type manifest struct {
	configMaps      map[string]corev1.ConfigMap
	serviceAccounts map[string]corev1.ServiceAccount
	daemonSet       *appsv1.DaemonSet
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "manifest:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 1 && len(arguments) != 4 {
		return errors.New("usage: manifest FILE [CONTAINER NODE SECRETS]")
	}
	text, err := os.ReadFile(arguments[0])
	if err != nil {
		return err
	}
	read, err := decode(text)
	if err != nil {
		return err
	}
	if err := read.check(); err != nil {
		return err
	}
	if len(arguments) == 1 {
		return nil
	}
	flags, err := read.podman(arguments[1], arguments[2], arguments[3])
	for _, flag := range flags {
		fmt.Printf("%s\x00", flag)
	}
	return err
}

func decode(text []byte) (*manifest, error) {
	read := &manifest{
		configMaps:      map[string]corev1.ConfigMap{},
		serviceAccounts: map[string]corev1.ServiceAccount{},
	}
	for number, document := range bytes.Split(text, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			return nil, fmt.Errorf("document %d: %w", number+1, err)
		}
		if err := read.add(kind, document); err != nil {
			return nil, fmt.Errorf("document %d (%s): %w", number+1, kind.Kind, err)
		}
	}
	if read.daemonSet == nil {
		return nil, errors.New("there is no DaemonSet")
	}
	return read, nil
}

// add takes in a document, whose fields are those of its kind.
func (m *manifest) add(kind metav1.TypeMeta, document []byte) error {
	switch kind.APIVersion + " " + kind.Kind {
	case "v1 ConfigMap":
		var read corev1.ConfigMap
		err := yaml.UnmarshalStrict(document, &read)
		m.configMaps[read.Name] = read
		return err
	case "v1 ServiceAccount":
		var read corev1.ServiceAccount
		err := yaml.UnmarshalStrict(document, &read)
		m.serviceAccounts[read.Name] = read
		return err
	case "apps/v1 DaemonSet":
		m.daemonSet = &appsv1.DaemonSet{}
		return yaml.UnmarshalStrict(document, m.daemonSet)
	}
	return fmt.Errorf("apiVersion %s has no such kind, or this program does not know it", kind.APIVersion)
}

// check looks for names that lead nowhere.
func (m *manifest) check() error {
	pod := m.daemonSet.Spec.Template
	for key, value := range m.daemonSet.Spec.Selector.MatchLabels {
		if pod.Labels[key] != value {
			return fmt.Errorf("the selector's label %s is not that of the pods", key)
		}
	}
	if _, ok := m.serviceAccounts[pod.Spec.ServiceAccountName]; !ok {
		return fmt.Errorf("there is no ServiceAccount %q", pod.Spec.ServiceAccountName)
	}
	used := map[string]bool{}
	for _, container := range m.containers() {
		if _, err := m.environment(container, ""); err != nil {
			return fmt.Errorf("container %s: %w", container.Name, err)
		}
		for _, mount := range container.VolumeMounts {
			if m.volume(mount.Name) == nil {
				return fmt.Errorf("container %s: there is no volume %s", container.Name, mount.Name)
			}
			used[mount.Name] = true
		}
	}
	for _, volume := range pod.Spec.Volumes {
		if !used[volume.Name] {
			return fmt.Errorf("no container mounts the volume %s", volume.Name)
		}
	}
	return nil
}

func (m *manifest) containers() []corev1.Container {
	pod := m.daemonSet.Spec.Template.Spec
	return append(append([]corev1.Container{}, pod.InitContainers...), pod.Containers...)
}

func (m *manifest) volume(name string) *corev1.Volume {
	for _, volume := range m.daemonSet.Spec.Template.Spec.Volumes {
		if volume.Name == name {
			return &volume
		}
	}
	return nil
}

// environment gives the variables of a container on a node.
func (m *manifest) environment(container corev1.Container, node string) ([]string, error) {
	var variables []string
	for _, variable := range container.Env {
		value := variable.Value
		if from := variable.ValueFrom; from != nil {
			switch {
			case from.FieldRef != nil && from.FieldRef.FieldPath == "spec.nodeName":
				value = node
			case from.ConfigMapKeyRef != nil:
				found, ok := m.configMaps[from.ConfigMapKeyRef.Name].Data[from.ConfigMapKeyRef.Key]
				if !ok {
					return nil, fmt.Errorf("%s: no ConfigMap has its value", variable.Name)
				}
				value = found
			default:
				return nil, fmt.Errorf("%s: this program does not know where its value is", variable.Name)
			}
		}
		variables = append(variables, variable.Name+"="+value)
	}
	return variables, nil
}

// podman gives the arguments after "podman run" for a container.
func (m *manifest) podman(name, node, secrets string) ([]string, error) {
	var container *corev1.Container
	for _, candidate := range m.containers() {
		if candidate.Name == name {
			container = &candidate
		}
	}
	if container == nil {
		return nil, fmt.Errorf("there is no container %s", name)
	}
	pod := m.daemonSet.Spec.Template.Spec
	if !pod.HostNetwork || pod.HostPID || pod.HostIPC {
		return nil, errors.New("of the node's namespaces this program knows only the network's")
	}
	// The host name of a pod in the node's network is the node's.
	flags := []string{"--network=host", "--uts=host", "--read-only-tmpfs=false"}
	flags = append(flags, confinement(container.SecurityContext)...)
	variables, err := m.environment(*container, node)
	if err != nil {
		return nil, err
	}
	for _, variable := range variables {
		flags = append(flags, "--env="+variable)
	}
	for _, mount := range container.VolumeMounts {
		source, err := source(m.volume(mount.Name), secrets)
		if err != nil {
			return nil, err
		}
		flag := "--volume=" + source + ":" + mount.MountPath
		if mount.ReadOnly {
			flag += ":ro"
		}
		flags = append(flags, flag)
	}
	return append(append(flags, container.Image), container.Args...), nil
}

// confinement gives podman's flags for what a container may do.
func confinement(context *corev1.SecurityContext) []string {
	flags := []string{
		fmt.Sprintf("--read-only=%t", *context.ReadOnlyRootFilesystem),
		fmt.Sprintf("--security-opt=no-new-privileges=%t", !*context.AllowPrivilegeEscalation),
	}
	for _, capability := range context.Capabilities.Drop {
		flags = append(flags, "--cap-drop="+string(capability))
	}
	for _, capability := range context.Capabilities.Add {
		flags = append(flags, "--cap-add="+string(capability))
	}
	return flags
}

// source gives the path on the node of a volume, which is made as the kubelet makes it.
func source(volume *corev1.Volume, secrets string) (string, error) {
	switch {
	case volume.Secret != nil:
		path := filepath.Join(secrets, volume.Secret.SecretName)
		return path, os.MkdirAll(path, 0o755)
	case volume.HostPath != nil && *volume.HostPath.Type == corev1.HostPathDirectoryOrCreate:
		return volume.HostPath.Path, os.MkdirAll(volume.HostPath.Path, 0o755)
	case volume.HostPath != nil:
		return volume.HostPath.Path, nil
	}
	return "", fmt.Errorf("volume %s: this program knows secret and hostPath alone", volume.Name)
}
