// The vault with the two secrets. Both are written through Azure Resource Manager, so whoever
// deploys needs no right to read them.

param name string
param location string
param tags object

@allowed(['Enabled', 'Disabled'])
@description('Disabled: reachable from private endpoints only.')
param publicNetworkAccess string

param workspaceId string

@secure()
param modzyApiKey string

param modzyApiKeySecretName string
param uploadAccountName string

@allowed(['key1', 'key2'])
param uploadStorageActiveKey string

param uploadStorageKeySecretName string

// The service lists its keys in this order.
var keyIndex = uploadStorageActiveKey == 'key1' ? 0 : 1

resource uploadAccount 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: uploadAccountName
}

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' = {
  // checkov:skip=CKV_AZURE_189: closed with privateNetworking; without it the app has no fixed address to allow
  // checkov:skip=CKV_AZURE_109: the same; roles on single secrets are the barrier
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    enablePurgeProtection: true
    // The shortest: both secrets can be had again from where they came.
    softDeleteRetentionInDays: 7
    publicNetworkAccess: publicNetworkAccess
    networkAcls: {
      bypass: 'AzureServices'
      defaultAction: publicNetworkAccess == 'Disabled' ? 'Deny' : 'Allow'
    }
  }
}

resource modzyApiKeySecret 'Microsoft.KeyVault/vaults/secrets@2024-11-01' = {
  // checkov:skip=CKV_AZURE_41: an expiry date would not end the key's life at Modzy; an alert fires when Modzy refuses it
  parent: vault
  name: modzyApiKeySecretName
  properties: {
    value: modzyApiKey
    contentType: 'Modzy API key'
  }
}

resource uploadStorageKeySecret 'Microsoft.KeyVault/vaults/secrets@2024-11-01' = {
  // checkov:skip=CKV_AZURE_41: the account's key policy keeps the age of the key itself
  parent: vault
  name: uploadStorageKeySecretName
  properties: {
    value: uploadAccount.listKeys().keys[keyIndex].value
    contentType: 'Storage account key (${uploadStorageActiveKey})'
  }
}

resource auditLog 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'audit-log'
  scope: vault
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'audit'
        enabled: true
      }
    ]
  }
}

output id string = vault.id
output name string = vault.name
output uri string = vault.properties.vaultUri
