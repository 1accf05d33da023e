package v1alpha1

//go:generate go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0 object crd:generateEmbeddedObjectMeta=false,allowDangerousTypes=false paths=../../danm/v1 paths=. output:crd:dir=../../../deploy/crd
