package v1

import (
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// ErrNotOurs says that a manifest is of another API.
var ErrNotOurs = errors.New("not of danm.io/v1")

// ErrInvalid says that a manifest does not fit its kind; the error names every offending field.
var ErrInvalid = errors.New("invalid manifest")

// Decode reads one manifest, YAML or JSON, strictly: unknown and duplicate fields are errors, as in DANM's webhook. The
// result is a *DanmNet, *TenantNetwork, *ClusterNetwork, *TenantConfig or *DanmEp with the apiVersion danm.io/v1 (the old
// group is read too). Field names are matched case-sensitively, unlike DANM's.
func Decode(manifest []byte) (any, error) {
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(manifest, &meta); err != nil {
		return nil, fmt.Errorf("read apiVersion and kind: %w: %w", ErrInvalid, err)
	}
	group, version, _ := strings.Cut(meta.APIVersion, "/")
	if (group != Group && group != LegacyGroup) || version != Version {
		return nil, fmt.Errorf("%s %q: %w", meta.Kind, meta.APIVersion, ErrNotOurs)
	}
	var (
		object any
		own    *metav1.TypeMeta
	)
	switch meta.Kind {
	case KindDanmNet:
		o := &DanmNet{}
		object, own = o, &o.TypeMeta
	case KindTenantNetwork:
		o := &TenantNetwork{}
		object, own = o, &o.TypeMeta
	case KindClusterNetwork:
		o := &ClusterNetwork{}
		object, own = o, &o.TypeMeta
	case KindTenantConfig:
		o := &TenantConfig{}
		object, own = o, &o.TypeMeta
	case KindDanmEp:
		o := &DanmEp{}
		object, own = o, &o.TypeMeta
	default:
		return nil, fmt.Errorf("kind %q: %w", meta.Kind, ErrNotOurs)
	}
	if err := strict(manifest, object); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", meta.Kind, ErrInvalid, err)
	}
	own.APIVersion = APIVersion
	return object, nil
}

func strict(manifest []byte, object any) error {
	text, err := yaml.YAMLToJSONStrict(manifest)
	if err != nil {
		return err
	}
	problems, err := kjson.UnmarshalStrict(text, object)
	return errors.Join(append(problems, err)...)
}
