"""Isthmus joins many Kubernetes clusters into one service mesh that speaks Istio's API."""
