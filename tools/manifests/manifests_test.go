package manifests

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

const folder = "../../deploy/kubernetes"

// objects are what a manifest may have, by kind.
func object(kind string) any {
	switch kind {
	case "ConfigMap":
		return &corev1.ConfigMap{}
	case "Service":
		return &corev1.Service{}
	case "StatefulSet":
		return &appsv1.StatefulSet{}
	case "Deployment":
		return &appsv1.Deployment{}
	}
	return nil
}

// parse reads a document as the API server does that is told to be strict: no field that is unknown, none twice, none of another type.
func parse(t *testing.T, text []byte) (any, error) {
	t.Helper()
	var head struct{ APIVersion, Kind string }
	require.NoError(t, yaml.Unmarshal(text, &head))
	into := object(head.Kind)
	require.NotNil(t, into, "nobody knows the kind %q", head.Kind)
	return into, yaml.UnmarshalStrict(text, into)
}

// manifests are the documents of each file.
func manifests(t *testing.T) map[string][][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	require.NoError(t, err)
	require.Len(t, files, 2)
	all := map[string][][]byte{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		all[filepath.Base(file)] = bytes.Split(text, []byte("\n---\n"))
	}
	return all
}

func TestSchemas(t *testing.T) {
	t.Parallel()
	for _, text := range slices.Concat(slices.Collect(maps.Values(manifests(t)))...) {
		_, err := parse(t, text)
		require.NoError(t, err)
		// What the API would refuse is found.
		_, err = parse(t, bytes.Replace(text, []byte("\nmetadata:"), []byte("\nmetadatum:"), 1))
		require.ErrorContains(t, err, `unknown field "metadatum"`)
	}
}

// TestReferences: what the schemas cannot say, names that must be those of something else.
func TestReferences(t *testing.T) {
	t.Parallel()
	for file, texts := range manifests(t) {
		var set *appsv1.StatefulSet
		var deployment *appsv1.Deployment
		configs, services := map[string]*corev1.ConfigMap{}, map[string]*corev1.Service{}
		for _, text := range texts {
			parsed, err := parse(t, text)
			require.NoError(t, err)
			switch o := parsed.(type) {
			case *appsv1.StatefulSet:
				set = o
			case *appsv1.Deployment:
				deployment = o
			case *corev1.ConfigMap:
				configs[o.Name] = o
			case *corev1.Service:
				services[o.Name] = o
			}
		}
		if file == "sluice-kafka.yaml" {
			require.Greater(t, *deployment.Spec.Replicas, int32(1))
			require.Equal(t, deployment.Spec.Selector.MatchLabels, deployment.Spec.Template.Labels)
			require.Contains(t, deployment.Spec.Template.Spec.Containers[0].Args, "--join")
			require.Contains(t, configs["shop"].Data["pipeline.yaml"], "url: kafka://")
			checkPod(t, deployment.Spec.Template, nil, configs, services["shop"])
			continue
		}
		require.EqualValues(t, 1, *set.Spec.Replicas, "the log is of one process")
		require.Equal(t, set.Spec.Selector.MatchLabels, set.Spec.Template.Labels)
		require.NotContains(t, set.Spec.Template.Spec.Containers[0].Args, "--join")
		checkPod(t, set.Spec.Template, set.Spec.VolumeClaimTemplates, configs, services[set.Spec.ServiceName])
	}
}

func checkPod(t *testing.T, pod corev1.PodTemplateSpec, claims []corev1.PersistentVolumeClaim, configs map[string]*corev1.ConfigMap, service *corev1.Service) {
	t.Helper()
	require.NotNil(t, service)
	require.Equal(t, pod.Labels, service.Spec.Selector)
	require.GreaterOrEqual(t, *pod.Spec.TerminationGracePeriodSeconds, int64(60))

	volumes := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = true
		if v.ConfigMap != nil {
			require.Contains(t, configs, v.ConfigMap.Name)
		}
	}
	for _, v := range claims {
		volumes[v.Name] = true
	}
	c := pod.Spec.Containers[0]
	mounts := map[string]string{}
	for _, m := range c.VolumeMounts {
		require.True(t, volumes[m.Name], "no volume %s", m.Name)
		mounts[m.Name] = m.MountPath
	}
	require.Len(t, mounts, len(volumes))
	require.True(t, strings.HasPrefix(c.Args[3], mounts["data"]+"/"))
	require.Equal(t, mounts["pipeline"]+"/pipeline.yaml", c.Args[1])
	ports := map[string]int32{}
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	require.EqualValues(t, 9400, ports["metrics"])
	require.Equal(t, ":9400", c.Args[5])
	for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe} {
		require.Contains(t, ports, probe.HTTPGet.Port.StrVal)
	}
}
